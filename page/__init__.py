"""The live page: what the loop learns and chooses, and whether anything is wrong, in a browser."""

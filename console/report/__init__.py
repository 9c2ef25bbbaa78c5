"""`steersman report`: what the loop has done, as one HTML file and in the terminal."""

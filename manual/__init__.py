"""The manual: the site of ``docs/`` with the reference pages, and the commands and snippets that tests run."""

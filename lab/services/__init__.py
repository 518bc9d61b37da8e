"""What the lab can be asked to do, one verb a file: the order of actions and the transactions, no algorithms."""

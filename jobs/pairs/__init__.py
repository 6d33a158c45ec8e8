"""`hardmine pairs`: from logs to labels. Reads logs, corrects their bias, and writes the tables that a run takes."""

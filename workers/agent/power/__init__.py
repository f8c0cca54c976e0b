"""What this device draws: sensors as rows of one table, joules by what was going on."""

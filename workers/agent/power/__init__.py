"""Power and energy of this device: a table of sensors, and joules by activity."""

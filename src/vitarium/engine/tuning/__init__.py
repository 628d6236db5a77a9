"""What is fastest here, and what it will cost: machines, speeds, training modes."""

"""Every file format in and out. LPS and RAS are turned into one another here and nowhere else."""

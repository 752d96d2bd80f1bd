"""The data sets, a file each: its name is the data set's, FACTS what is known of it, and a function that reads it.

read_listing(root) lists a data set that lies in files below `root`; load_bundled(split) makes one that comes with a library.
Neither torch nor torchvision is imported before one of these is called, so that planning needs neither.
"""

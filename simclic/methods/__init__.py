"""Methods, one file each: how an encoder learns without labels."""

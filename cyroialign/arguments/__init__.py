"""Arguments as users write them, checked and read: the only modules that raise about them."""

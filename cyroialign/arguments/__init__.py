"""Arguments as users write them, checked and read: only these modules raise errors about them."""

"""What runs show: tables, paired differences, pictures, and a page of all of them."""

"""A server's address → its replies, or typed errors. Speaks HTTP; knows no request and no frame."""

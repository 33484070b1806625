//! The in-memory back end of netpol, the naive reference specification, and symbolic connectivity.

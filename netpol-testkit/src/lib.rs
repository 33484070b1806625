//! Strategies, semantic cases and laws with which any netpol back end can be tested.

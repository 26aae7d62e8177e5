//! posync-gateway.

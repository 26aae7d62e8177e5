//! posync-client.

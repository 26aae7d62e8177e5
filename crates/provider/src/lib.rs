//! posync-provider.

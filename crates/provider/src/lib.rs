//! posync-provider.
#[cfg(test)]
mod cut;
pub mod segments;

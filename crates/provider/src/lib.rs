//! posync-provider.
#[cfg(test)]
mod cut;
mod journal;
pub mod segments;

//! The rules of Proof of Sync: what every node must compute identically.
#![no_std]
extern crate alloc;

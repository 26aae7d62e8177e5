//! Calls beside files: arguments, clock, random numbers, the end of the program, and sockets, which there are none of.

use super::{Call, Errno, Halt, Stop, state::Descriptor};
use crate::price;
use rand_chacha::rand_core::Rng as _;

/// The virtual clock moves by this much with each look at it.
const TICK_NS: u64 = 1_000_000;
/// Bytes of a subscription, and of an event.
const SUBSCRIPTION_BYTES: u64 = 48;
const EVENT_BYTES: u64 = 32;
/// Most subscriptions of a poll.
const SUBSCRIPTIONS_MAX: u64 = 1024;

type Done = Result<(), Stop>;

pub(super) fn args_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let words = std::mem::take(&mut call.state.args);
    let done = put_words(call, &words, args[0], args[1]);
    call.state.args = words;
    done
}

pub(super) fn args_sizes_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (count, bytes) = sizes(&call.state.args);
    call.guest.put_u32(args[0], count)?;
    Ok(call.guest.put_u32(args[1], bytes)?)
}

pub(super) fn environ_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let words = std::mem::take(&mut call.state.env);
    let done = put_words(call, &words, args[0], args[1]);
    call.state.env = words;
    done
}

pub(super) fn environ_sizes_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (count, bytes) = sizes(&call.state.env);
    call.guest.put_u32(args[0], count)?;
    Ok(call.guest.put_u32(args[1], bytes)?)
}

/// Words and their bytes, each with a zero at its end. Both are bounded by the job.
fn sizes(words: &[String]) -> (u32, u32) {
    (words.len() as u32, words.iter().map(|word| word.len() as u32 + 1).sum())
}

/// Writes words one after the other, and the address of each into a list.
fn put_words(call: &mut Call<'_>, words: &[String], list: u64, bytes: u64) -> Done {
    let mut at = bytes;
    for (index, word) in (0..).zip(words) {
        call.pay((word.len() as u64 + 5) * price::HOST_BYTE)?;
        call.guest.put(at, word.as_bytes())?;
        call.guest.put(at + word.len() as u64, &[0])?;
        call.guest.put_u32(list + index * 4, at as u32)?;
        at += word.len() as u64 + 1;
    }
    Ok(())
}

pub(super) fn clock_res_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    check_clock(args[0])?;
    Ok(call.guest.put_u64(args[1], TICK_NS)?)
}

pub(super) fn clock_time_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    check_clock(args[0])?;
    call.state.elapsed_ns = call.state.elapsed_ns.saturating_add(TICK_NS);
    let now = if args[0] == 0 { call.state.now_ns() } else { call.state.elapsed_ns };
    Ok(call.guest.put_u64(args[2], now)?)
}

/// There are four clocks: of the day, since the start, and of the time of process and thread.
fn check_clock(clock: u64) -> Result<(), Errno> {
    if clock < 4 { Ok(()) } else { Err(Errno::INVAL) }
}

/// Returns the events that are due. Files and streams always are; if nothing else is, the clock jumps to the first
/// time that is waited for.
pub(super) fn poll_oneoff(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (from, to, count) = (args[0], args[1], args[2]);
    if count == 0 || count > SUBSCRIPTIONS_MAX {
        return Err(Errno::INVAL.into());
    }
    call.pay(count * (SUBSCRIPTION_BYTES + EVENT_BYTES) * price::HOST_BYTE)?;
    call.state.elapsed_ns = call.state.elapsed_ns.saturating_add(TICK_NS);
    let mut asked = Vec::new();
    for index in 0..count {
        let subscription = call.guest.array(from + index * SUBSCRIPTION_BYTES)?;
        asked.push(subscribed(call, &subscription));
    }
    let first = asked.iter().map(|event| event.due_ns).min().unwrap_or(0);
    call.state.elapsed_ns = call.state.elapsed_ns.max(first);
    let mut events = 0;
    for event in asked.iter().filter(|event| event.due_ns <= call.state.elapsed_ns) {
        call.guest.put(to + u64::from(events) * EVENT_BYTES, &event.bytes)?;
        events += 1;
    }
    Ok(call.guest.put_u32(args[3], events)?)
}

/// An event that a program waits for, and the virtual time at which it happens.
struct Event {
    due_ns: u64,
    bytes: [u8; EVENT_BYTES as usize],
}

fn subscribed(call: &mut Call<'_>, subscription: &[u8; SUBSCRIPTION_BYTES as usize]) -> Event {
    let word = |at: usize| u64::from_le_bytes(subscription[at..at + 8].try_into().expect("8 bytes"));
    let (kind, of) = (subscription[8], word(16) & u64::from(u32::MAX));
    let mut event = Event { due_ns: 0, bytes: [0; EVENT_BYTES as usize] };
    event.bytes[..8].copy_from_slice(&subscription[..8]);
    event.bytes[10] = kind;
    let mut fail = |errno: Errno| event.bytes[8..10].copy_from_slice(&errno.0.to_le_bytes());
    if kind != 0 {
        let bytes = match call.state.descriptor(of).map(|descriptor| descriptor.clone()) {
            Ok(Descriptor::Stdin { at }) => (call.state.stdin.len() - at) as u64,
            Ok(Descriptor::File { node, at, .. }) => call.state.tree.size(node).saturating_sub(at),
            Ok(_) => 0,
            Err(errno) => {
                fail(errno);
                0
            }
        };
        if kind == 1 {
            event.bytes[16..24].copy_from_slice(&bytes.to_le_bytes());
        }
        return event;
    }
    if let Err(errno) = check_clock(of) {
        fail(errno);
        return event;
    }
    let (timeout, is_absolute) = (word(24), subscription[40] & 1 != 0);
    let zero = call.state.now_ns() - call.state.elapsed_ns;
    event.due_ns = match (is_absolute, of) {
        (false, _) => call.state.elapsed_ns.saturating_add(timeout),
        (true, 0) => timeout.saturating_sub(zero),
        (true, _) => timeout,
    };
    event
}

pub(super) fn proc_exit(_: &mut Call<'_>, args: &[u64]) -> Done {
    Err(Stop::Halt(Halt::Exit(args[0] as u32)))
}

/// There are no signals.
pub(super) fn proc_raise(_: &mut Call<'_>, _: &[u64]) -> Done {
    Err(Errno::NOSYS.into())
}

pub(super) fn random_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let buffer = call.guest.buffer(args[0], args[1])?;
    call.pay(args[1] * price::RANDOM_BYTE)?;
    call.state.random.fill_bytes(call.guest.bytes_mut(&buffer));
    Ok(())
}

pub(super) fn sched_yield(_: &mut Call<'_>, _: &[u64]) -> Done {
    Ok(())
}

pub(super) fn sock_accept(call: &mut Call<'_>, args: &[u64]) -> Done {
    no_socket(call, args[0])
}

pub(super) fn sock_recv(call: &mut Call<'_>, args: &[u64]) -> Done {
    no_socket(call, args[0])
}

pub(super) fn sock_send(call: &mut Call<'_>, args: &[u64]) -> Done {
    no_socket(call, args[0])
}

pub(super) fn sock_shutdown(call: &mut Call<'_>, args: &[u64]) -> Done {
    no_socket(call, args[0])
}

fn no_socket(call: &mut Call<'_>, number: u64) -> Done {
    call.state.descriptor(number)?;
    Err(Errno::NOTSOCK.into())
}

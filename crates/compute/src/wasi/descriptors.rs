//! Calls on descriptors: `fd_*`.

use super::{
    Call, Errno, Stop,
    guest::Buffer,
    state::{Descriptor, Item, State},
};
use crate::{limits, price, tree::Node};
use std::rc::Rc;

/// All rights of preview 1: the tree has no owners.
const RIGHTS_ALL: u64 = (1 << 29) - 1;
/// The flag of a descriptor by which each write goes to the end.
pub(super) const APPEND: u64 = 1;

const UNKNOWN: u8 = 0;
const DIRECTORY: u8 = 3;
const REGULAR_FILE: u8 = 4;

/// Bytes of a directory entry before its name.
const ENTRY_BYTES: usize = 24;

type Done = Result<(), Stop>;

pub(super) fn fd_advise(call: &mut Call<'_>, args: &[u64]) -> Done {
    open_file(call, args[0])?;
    Ok(())
}

pub(super) fn fd_allocate(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (node, _) = open_file(call, args[0])?;
    let size = args[1].checked_add(args[2]).ok_or(Errno::FBIG)?;
    let old = call.state.tree.size(node);
    grow(call, node, size.max(old))
}

/// Sets a file's size; bytes that are added are paid for first.
fn grow(call: &mut Call<'_>, node: Node, size: u64) -> Done {
    let added = size.saturating_sub(call.state.tree.size(node));
    if added > limits::OUTPUT_BYTES_MAX as u64 {
        return Err(Errno::FBIG.into());
    }
    call.pay(added * price::HOST_BYTE)?;
    Ok(call.state.tree.resize(node, size)?)
}

pub(super) fn fd_close(call: &mut Call<'_>, args: &[u64]) -> Done {
    Ok(call.state.close(args[0])?)
}

pub(super) fn fd_datasync(call: &mut Call<'_>, args: &[u64]) -> Done {
    fd_sync(call, args)
}

/// Everything is in memory, so everything is as durable as it will be.
pub(super) fn fd_sync(call: &mut Call<'_>, args: &[u64]) -> Done {
    call.state.descriptor(args[0])?;
    Ok(())
}

pub(super) fn fd_fdstat_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let descriptor = call.state.descriptor(args[0])?;
    let append = matches!(descriptor, Descriptor::File { append: true, .. });
    let mut stat = [0; 24];
    stat[0] = file_type(descriptor);
    stat[2] = u8::from(append);
    stat[8..16].copy_from_slice(&RIGHTS_ALL.to_le_bytes());
    stat[16..24].copy_from_slice(&RIGHTS_ALL.to_le_bytes());
    Ok(call.guest.put(args[1], &stat)?)
}

/// The type of what a descriptor has open. The standard streams have none: they are no terminal.
fn file_type(descriptor: &Descriptor) -> u8 {
    match descriptor {
        Descriptor::Directory { .. } => DIRECTORY,
        Descriptor::File { .. } => REGULAR_FILE,
        _ => UNKNOWN,
    }
}

pub(super) fn fd_fdstat_set_flags(call: &mut Call<'_>, args: &[u64]) -> Done {
    if let Descriptor::File { append, .. } = call.state.descriptor(args[0])? {
        *append = args[1] & APPEND != 0;
    }
    Ok(())
}

pub(super) fn fd_fdstat_set_rights(call: &mut Call<'_>, args: &[u64]) -> Done {
    call.state.descriptor(args[0])?;
    Ok(())
}

pub(super) fn fd_filestat_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let node = call.state.descriptor(args[0])?.node();
    put_stat(call, args[1], node)
}

/// Writes the description of a node, or of a standard stream. Times are zero.
pub(super) fn put_stat(call: &mut Call<'_>, at: u64, node: Option<Node>) -> Done {
    let mut stat = [0; 64];
    if let Some(node) = node {
        let tree = &call.state.tree;
        stat[8..16].copy_from_slice(&inode(node).to_le_bytes());
        stat[16] = if tree.is_directory(node) { DIRECTORY } else { REGULAR_FILE };
        stat[24..32].copy_from_slice(&1_u64.to_le_bytes());
        stat[32..40].copy_from_slice(&tree.size(node).to_le_bytes());
    }
    Ok(call.guest.put(at, &stat)?)
}

fn inode(node: Node) -> u64 {
    node as u64 + 1
}

pub(super) fn fd_filestat_set_size(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (node, _) = open_file(call, args[0])?;
    grow(call, node, args[1])
}

/// Files have no times.
pub(super) fn fd_filestat_set_times(call: &mut Call<'_>, args: &[u64]) -> Done {
    call.state.descriptor(args[0])?;
    Ok(())
}

/// The node of an open file, and its position.
fn open_file(call: &mut Call<'_>, number: u64) -> Result<(Node, u64), Errno> {
    match call.state.descriptor(number)? {
        Descriptor::File { node, at, .. } => Ok((*node, *at)),
        Descriptor::Directory { .. } => Err(Errno::ISDIR),
        _ => Err(Errno::SPIPE),
    }
}

pub(super) fn fd_read(call: &mut Call<'_>, args: &[u64]) -> Done {
    let buffers = buffers(call, args[1], args[2])?;
    let read = match *call.state.descriptor(args[0])? {
        Descriptor::Stdin { at } => {
            let read = read_stdin(call, at, &buffers)?;
            *call.state.descriptor(args[0])? = Descriptor::Stdin { at: at + read };
            read
        }
        Descriptor::File { node, at, .. } => {
            let read = read_file(call, node, at, &buffers)?;
            seek_to(call, args[0], at + read as u64)?;
            read
        }
        Descriptor::Directory { .. } => return Err(Errno::ISDIR.into()),
        Descriptor::Stdout | Descriptor::Stderr => return Err(Errno::BADF.into()),
    };
    Ok(call.guest.put_u32(args[3], read as u32)?)
}

pub(super) fn fd_pread(call: &mut Call<'_>, args: &[u64]) -> Done {
    let buffers = buffers(call, args[1], args[2])?;
    let (node, _) = open_file(call, args[0])?;
    let read = read_file(call, node, args[3], &buffers)?;
    Ok(call.guest.put_u32(args[4], read as u32)?)
}

/// The buffers of a call, whose list is paid for.
fn buffers(call: &mut Call<'_>, at: u64, count: u64) -> Result<Vec<Buffer>, Stop> {
    call.pay(count * 8 * price::HOST_BYTE)?;
    Ok(call.guest.buffers(at, count)?)
}

/// Bytes of all buffers, as far as a call may move them: a u32 counts them.
fn room(buffers: &[Buffer]) -> usize {
    buffers.iter().map(Buffer::len).fold(0, |sum: usize, len| sum.saturating_add(len)).min(u32::MAX as usize)
}

fn read_stdin(call: &mut Call<'_>, at: usize, buffers: &[Buffer]) -> Result<usize, Stop> {
    let bytes = room(buffers).min(call.state.stdin.len() - at);
    call.pay(bytes as u64 * price::HOST_BYTE)?;
    fill(&mut call.guest, buffers, &call.state.stdin[at..at + bytes]);
    Ok(bytes)
}

fn read_file(call: &mut Call<'_>, node: Node, at: u64, buffers: &[Buffer]) -> Result<usize, Stop> {
    let left = call.state.tree.size(node).saturating_sub(at);
    let bytes = (room(buffers) as u64).min(left);
    call.pay(bytes * price::HOST_BYTE)?;
    if bytes > 0 {
        // The range is within the file.
        let source = &call.state.tree.file(node)?[at as usize..(at + bytes) as usize];
        fill(&mut call.guest, buffers, source);
    }
    Ok(bytes as usize)
}

fn fill(guest: &mut super::Guest<'_>, buffers: &[Buffer], mut source: &[u8]) {
    for buffer in buffers {
        let (now, later) = source.split_at(buffer.len().min(source.len()));
        guest.bytes_mut(buffer)[..now.len()].copy_from_slice(now);
        source = later;
    }
}

fn seek_to(call: &mut Call<'_>, number: u64, position: u64) -> Result<(), Errno> {
    if let Descriptor::File { at, .. } = call.state.descriptor(number)? {
        *at = position;
    }
    Ok(())
}

pub(super) fn fd_write(call: &mut Call<'_>, args: &[u64]) -> Done {
    let buffers = buffers(call, args[1], args[2])?;
    let bytes = room(&buffers);
    call.pay(bytes as u64 * price::HOST_BYTE)?;
    match *call.state.descriptor(args[0])? {
        Descriptor::Stdout => {
            call.state.tree.spend(bytes as u64)?;
            for buffer in &buffers {
                call.state.stdout.extend_from_slice(call.guest.bytes(buffer));
            }
        }
        Descriptor::Stderr => {
            if call.state.stderr.len() + bytes > limits::STDERR_BYTES_MAX {
                return Err(Errno::NOSPC.into());
            }
            write_stderr(call, &buffers)?;
        }
        Descriptor::File { node, at, append } => {
            let at = if append { call.state.tree.size(node) } else { at };
            write_file(call, node, at, &buffers)?;
            seek_to(call, args[0], at + bytes as u64)?;
        }
        Descriptor::Directory { .. } => return Err(Errno::ISDIR.into()),
        Descriptor::Stdin { .. } => return Err(Errno::BADF.into()),
    }
    Ok(call.guest.put_u32(args[3], bytes as u32)?)
}

/// Sends the bytes of all buffers as one message, and keeps them.
fn write_stderr(call: &mut Call<'_>, buffers: &[Buffer]) -> Done {
    if room(buffers) == 0 {
        return Ok(());
    }
    call.pay(price::LIVE)?;
    let State { stderr, live, .. } = &mut *call.state;
    let before = stderr.len();
    for buffer in buffers {
        stderr.extend_from_slice(call.guest.bytes(buffer));
    }
    live(&stderr[before..]);
    Ok(())
}

pub(super) fn fd_pwrite(call: &mut Call<'_>, args: &[u64]) -> Done {
    let buffers = buffers(call, args[1], args[2])?;
    let bytes = room(&buffers);
    call.pay(bytes as u64 * price::HOST_BYTE)?;
    let (node, _) = open_file(call, args[0])?;
    write_file(call, node, args[3], &buffers)?;
    Ok(call.guest.put_u32(args[4], bytes as u32)?)
}

fn write_file(call: &mut Call<'_>, node: Node, at: u64, buffers: &[Buffer]) -> Done {
    let end = at.checked_add(room(buffers) as u64).ok_or(Errno::FBIG)?;
    if end > call.state.tree.size(node) {
        grow(call, node, end)?;
    }
    let mut at = at;
    for buffer in buffers {
        call.state.tree.write(node, at, call.guest.bytes(buffer))?;
        at += buffer.len() as u64;
    }
    Ok(())
}

pub(super) fn fd_prestat_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let name = preopened(call, args[0])?;
    call.guest.put_u32(args[1], 0)?;
    Ok(call.guest.put_u32(args[1] + 4, name.len() as u32)?)
}

pub(super) fn fd_prestat_dir_name(call: &mut Call<'_>, args: &[u64]) -> Done {
    let name = preopened(call, args[0])?;
    if (name.len() as u64) > args[2] {
        return Err(Errno::NAMETOOLONG.into());
    }
    Ok(call.guest.put(args[1], name.as_bytes())?)
}

fn preopened(call: &mut Call<'_>, number: u64) -> Result<&'static str, Errno> {
    match call.state.descriptor(number)? {
        Descriptor::Directory { preopened: Some(name), .. } => Ok(name),
        _ => Err(Errno::BADF),
    }
}

/// Lists a directory from a position on. The list is taken at position 0 and stays, whatever is removed meanwhile.
pub(super) fn fd_readdir(call: &mut Call<'_>, args: &[u64]) -> Done {
    let [number, at, len, cookie, used] = args[..] else { return Err(Errno::INVAL.into()) };
    let list = match call.state.descriptor(number)? {
        Descriptor::Directory { list: Some(list), .. } if cookie > 0 => list.clone(),
        Descriptor::Directory { .. } => take_list(call, number)?,
        _ => return Err(Errno::NOTDIR.into()),
    };
    call.guest.buffer(at, len)?;
    let mut room = len as usize;
    let from = usize::try_from(cookie).unwrap_or(usize::MAX).min(list.len());
    for (index, item) in (from as u64 + 1..).zip(&list[from..]) {
        if room == 0 {
            break;
        }
        let entry = entry(index, item);
        let bytes = entry.len().min(room);
        call.pay(bytes as u64 * price::HOST_BYTE)?;
        call.guest.put(at + len - room as u64, &entry[..bytes])?;
        room -= bytes;
    }
    Ok(call.guest.put_u32(used, (len as usize - room) as u32)?)
}

/// Takes a new list of a directory: itself, the one above it, and its entries in order. The lists of all descriptors
/// together are bounded.
fn take_list(call: &mut Call<'_>, number: u64) -> Result<Rc<Vec<Item>>, Stop> {
    let directory = call.state.directory(number)?;
    if let Descriptor::Directory { list, .. } = call.state.descriptor(number)? {
        *list = None;
    }
    let held: usize = call.state.descriptors.iter().flatten().map(Descriptor::listed).sum();
    let names = call.state.tree.list(directory)?;
    if held + names.len() > limits::LISTED_MAX {
        return Err(Errno::NOMEM.into());
    }
    let bytes = names.keys().map(|name| (ENTRY_BYTES + name.len()) as u64).sum::<u64>();
    call.pay(bytes * price::HOST_BYTE)?;
    let tree = &call.state.tree;
    let itself = [".", ".."].map(|name| Item { name: name.into(), node: directory, is_directory: true });
    let below = tree.list(directory)?.iter().map(|(name, node)| Item {
        name: name.clone(),
        node: *node,
        is_directory: tree.is_directory(*node),
    });
    let taken = Rc::new(itself.into_iter().chain(below).collect::<Vec<_>>());
    if let Descriptor::Directory { list, .. } = call.state.descriptor(number)? {
        *list = Some(taken.clone());
    }
    Ok(taken)
}

/// A directory entry as a program reads it; `next` is the position after it.
fn entry(next: u64, item: &Item) -> Vec<u8> {
    let mut entry = Vec::with_capacity(ENTRY_BYTES + item.name.len());
    entry.extend(next.to_le_bytes());
    entry.extend(inode(item.node).to_le_bytes());
    entry.extend((item.name.len() as u32).to_le_bytes());
    entry.extend([if item.is_directory { DIRECTORY } else { REGULAR_FILE }, 0, 0, 0]);
    entry.extend(item.name.as_bytes());
    entry
}

pub(super) fn fd_renumber(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (from, to) = (args[0], args[1]);
    let moved = call.state.descriptor(from)?.clone();
    call.state.descriptor(to)?;
    if from != to {
        call.state.close(to)?;
        call.state.descriptors[from as usize] = None;
        call.state.descriptors[to as usize] = Some(moved);
    }
    Ok(())
}

pub(super) fn fd_seek(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (node, at) = open_file(call, args[0])?;
    let base = match args[2] {
        0 => 0,
        1 => at,
        2 => call.state.tree.size(node),
        _ => return Err(Errno::INVAL.into()),
    };
    let position = base.checked_add_signed(args[1].cast_signed()).ok_or(Errno::INVAL)?;
    seek_to(call, args[0], position)?;
    Ok(call.guest.put_u64(args[3], position)?)
}

pub(super) fn fd_tell(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (_, at) = open_file(call, args[0])?;
    Ok(call.guest.put_u64(args[1], at)?)
}

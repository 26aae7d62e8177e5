//! Calls on paths: `path_*`. Every path is relative to an open directory and cannot leave it.

use super::{
    Call, Errno, Stop,
    descriptors::{APPEND, put_stat},
    state::Descriptor,
};
use crate::{price, tree::Node};

const CREATE: u64 = 1;
const DIRECTORY: u64 = 2;
const EXCLUSIVE: u64 = 4;
const TRUNCATE: u64 = 8;

type Done = Result<(), Stop>;

/// The end of a path: the node that it names, or the directory and the name under which there is none yet.
struct Target {
    directory: Node,
    name: String,
    node: Option<Node>,
    /// True if the path ends as a directory's does.
    is_directory: bool,
}

/// Follows a path from an open directory. Its bytes are paid for, and then each of its names: one is looked up among as
/// many as a tree holds, however short it is.
fn find(call: &mut Call<'_>, directory: u64, at: u64, len: u64) -> Result<Target, Stop> {
    call.pay(len * price::HOST_BYTE)?;
    let base = call.state.directory(directory)?;
    let path = call.guest.text(at, len)?.to_owned();
    if path.is_empty() {
        return Err(Errno::NOENT.into());
    }
    if path.starts_with('/') {
        return Err(Errno::NOTCAPABLE.into());
    }
    let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    call.pay(names.len() as u64 * price::NODE)?;
    let tree = &call.state.tree;
    // The directories on the way; the path may go back along it, and no further.
    let mut way = vec![base];
    let is_directory = path.ends_with('/') || path.ends_with("/.") || path == ".";
    let Some((last, names)) = names.split_last() else {
        return Ok(Target { directory: base, name: ".".into(), node: Some(base), is_directory: true });
    };
    let here = |way: &[Node]| *way.last().expect("the way keeps its start");
    for name in names {
        step(tree, &mut way, name)?;
    }
    if *last == ".." {
        step(tree, &mut way, last)?;
        let node = here(&way);
        return Ok(Target { directory: node, name: ".".into(), node: Some(node), is_directory: true });
    }
    let directory = here(&way);
    let node = tree.child(directory, last)?;
    if is_directory && node.is_some_and(|node| !tree.is_directory(node)) {
        return Err(Errno::NOTDIR.into());
    }
    Ok(Target { directory, name: (*last).to_owned(), node, is_directory })
}

/// Goes one name along a path.
fn step(tree: &crate::tree::Tree, way: &mut Vec<Node>, name: &str) -> Result<(), Errno> {
    if name == ".." {
        if way.len() == 1 {
            return Err(Errno::NOTCAPABLE);
        }
        way.pop();
        return Ok(());
    }
    let here = *way.last().expect("the way keeps its start");
    let node = tree.child(here, name)?.ok_or(Errno::NOENT)?;
    if !tree.is_directory(node) {
        return Err(Errno::NOTDIR);
    }
    way.push(node);
    Ok(())
}

pub(super) fn path_create_directory(call: &mut Call<'_>, args: &[u64]) -> Done {
    let place = find(call, args[0], args[1], args[2])?;
    if place.node.is_some() {
        return Err(Errno::EXIST.into());
    }
    create(call, &place, true)?;
    Ok(())
}

/// Makes what a path names. Every directory above it is looked at, and paid for: the whole path is bounded.
fn create(call: &mut Call<'_>, place: &Target, is_directory: bool) -> Result<Node, Stop> {
    call.pay(call.state.tree.depth(place.directory) * price::NODE)?;
    Ok(call.state.tree.create(place.directory, &place.name, is_directory)?)
}

pub(super) fn path_filestat_get(call: &mut Call<'_>, args: &[u64]) -> Done {
    let place = find(call, args[0], args[2], args[3])?;
    let node = place.node.ok_or(Errno::NOENT)?;
    put_stat(call, args[4], Some(node))
}

/// Files have no times.
pub(super) fn path_filestat_set_times(call: &mut Call<'_>, args: &[u64]) -> Done {
    let place = find(call, args[0], args[2], args[3])?;
    place.node.ok_or(Errno::NOENT)?;
    Ok(())
}

pub(super) fn path_link(_: &mut Call<'_>, _: &[u64]) -> Done {
    Err(Errno::NOTSUP.into())
}

pub(super) fn path_symlink(_: &mut Call<'_>, _: &[u64]) -> Done {
    Err(Errno::NOTSUP.into())
}

/// No node is a link.
pub(super) fn path_readlink(call: &mut Call<'_>, args: &[u64]) -> Done {
    let place = find(call, args[0], args[1], args[2])?;
    place.node.ok_or(Errno::NOENT)?;
    Err(Errno::INVAL.into())
}

pub(super) fn path_open(call: &mut Call<'_>, args: &[u64]) -> Done {
    let (flags, append) = (args[4], args[7] & APPEND != 0);
    let place = find(call, args[0], args[2], args[3])?;
    let node = match place.node {
        Some(_) if flags & CREATE != 0 && flags & EXCLUSIVE != 0 => return Err(Errno::EXIST.into()),
        Some(node) => node,
        None if flags & CREATE == 0 => return Err(Errno::NOENT.into()),
        None if place.is_directory || flags & DIRECTORY != 0 => return Err(Errno::INVAL.into()),
        None => create(call, &place, false)?,
    };
    let is_directory = call.state.tree.is_directory(node);
    if flags & DIRECTORY != 0 && !is_directory {
        return Err(Errno::NOTDIR.into());
    }
    if flags & TRUNCATE != 0 {
        call.state.tree.resize(node, 0)?;
    }
    let descriptor = if is_directory {
        Descriptor::Directory { node, preopened: None, list: None }
    } else {
        Descriptor::File { node, at: 0, append }
    };
    let number = call.state.add(descriptor)?;
    Ok(call.guest.put_u32(args[8], number)?)
}

pub(super) fn path_remove_directory(call: &mut Call<'_>, args: &[u64]) -> Done {
    remove(call, args, true)
}

pub(super) fn path_unlink_file(call: &mut Call<'_>, args: &[u64]) -> Done {
    remove(call, args, false)
}

fn remove(call: &mut Call<'_>, args: &[u64], is_directory: bool) -> Done {
    let place = find(call, args[0], args[1], args[2])?;
    if place.name == "." {
        return Err(Errno::INVAL.into());
    }
    Ok(call.state.tree.remove(place.directory, &place.name, is_directory)?)
}

pub(super) fn path_rename(call: &mut Call<'_>, args: &[u64]) -> Done {
    let from = find(call, args[0], args[1], args[2])?;
    let to = find(call, args[3], args[4], args[5])?;
    if from.name == "." || to.name == "." {
        return Err(Errno::INVAL.into());
    }
    let node = from.node.ok_or(Errno::NOENT)?;
    let (below, seen) = call.state.tree.reach(node);
    // Paid whether or not the new name is accepted. The way up is gone twice.
    call.pay((seen + 2 * call.state.tree.depth(to.directory)) * price::NODE)?;
    Ok(call.state.tree.rename((from.directory, &from.name), (to.directory, &to.name), below)?)
}

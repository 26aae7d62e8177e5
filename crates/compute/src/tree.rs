//! A job's files: a tree in memory, sorted by name, without times or owners.
//!
//! Nodes are numbers, so a file that is open stays while its name is gone. All bytes that a program adds are taken
//! from a budget, and come back when a file is cut or removed.

use crate::{limits, wasi::Errno};
use std::collections::BTreeMap;

/// The number of a node. It is the node's inode number less one.
pub(crate) type Node = usize;

/// The root of each tree.
pub(crate) const ROOT: Node = 0;

/// A file or a directory.
#[derive(Debug)]
enum Content {
    File(Vec<u8>),
    Directory(BTreeMap<String, Node>),
    /// Removed; the number is free.
    Free,
}

#[derive(Debug)]
struct Inode {
    content: Content,
    /// Descriptors that have it open.
    open: u32,
    /// True while a directory has it.
    named: bool,
    /// The directory that has it; of the root itself.
    parent: Node,
    /// Bytes of its name, and of the stroke before it.
    name_bytes: usize,
}

/// The files and directories of a job.
#[derive(Debug)]
pub(crate) struct Tree {
    entries: Vec<Inode>,
    free: Vec<Node>,
    /// Bytes that may still be added.
    budget: u64,
}

impl Tree {
    /// An empty tree to which `budget` bytes may be added.
    pub(crate) fn new(budget: u64) -> Self {
        let root = Inode {
            content: Content::Directory(BTreeMap::new()),
            open: 0,
            named: true,
            parent: ROOT,
            name_bytes: 0,
        };
        Self { entries: vec![root], free: Vec::new(), budget }
    }

    /// Takes `bytes` from the budget.
    pub(crate) fn spend(&mut self, bytes: u64) -> Result<(), Errno> {
        self.budget = self.budget.checked_sub(bytes).ok_or(Errno::NOSPC)?;
        Ok(())
    }

    /// Puts an input file at an absolute path, with the directories above it; its bytes are free.
    pub(crate) fn put(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), Errno> {
        let mut names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
        let last = names.pop().ok_or(Errno::INVAL)?;
        let mut directory = ROOT;
        for name in names {
            directory = match self.child(directory, name)? {
                Some(node) => node,
                None => self.create(directory, name, true)?,
            };
        }
        if self.child(directory, last)?.is_some() {
            return Err(Errno::EXIST);
        }
        let node = self.create(directory, last, false)?;
        self.entries[node].content = Content::File(bytes);
        Ok(())
    }

    pub(crate) fn is_directory(&self, node: Node) -> bool {
        matches!(self.entries[node].content, Content::Directory(_))
    }

    /// Bytes of a file; of a directory 0.
    pub(crate) fn size(&self, node: Node) -> u64 {
        self.file(node).map_or(0, |bytes| bytes.len() as u64)
    }

    pub(crate) fn file(&self, node: Node) -> Result<&[u8], Errno> {
        match &self.entries[node].content {
            Content::File(bytes) => Ok(bytes),
            _ => Err(Errno::ISDIR),
        }
    }

    /// Names and nodes of a directory, in order.
    pub(crate) fn list(&self, node: Node) -> Result<&BTreeMap<String, Node>, Errno> {
        match &self.entries[node].content {
            Content::Directory(names) => Ok(names),
            _ => Err(Errno::NOTDIR),
        }
    }

    pub(crate) fn child(&self, directory: Node, name: &str) -> Result<Option<Node>, Errno> {
        Ok(self.list(directory)?.get(name).copied())
    }

    fn names(&mut self, directory: Node) -> Result<&mut BTreeMap<String, Node>, Errno> {
        match &mut self.entries[directory].content {
            Content::Directory(names) => Ok(names),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// Makes an empty file or directory under a name that is free.
    pub(crate) fn create(&mut self, directory: Node, name: &str, is_directory: bool) -> Result<Node, Errno> {
        check_name(name)?;
        if self.child(directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        // A directory that was removed while it is open takes no entries.
        if !self.entries[directory].named {
            return Err(Errno::NOENT);
        }
        if self.entries.len() - self.free.len() >= limits::NODES_MAX {
            return Err(Errno::NOSPC);
        }
        self.check_path(directory, name.len() + 1)?;
        let content =
            if is_directory { Content::Directory(BTreeMap::new()) } else { Content::File(Vec::new()) };
        let name_bytes = name.len() + 1;
        let entry = Inode { content, open: 0, named: true, parent: directory, name_bytes };
        let node = match self.free.pop() {
            Some(node) => {
                self.entries[node] = entry;
                node
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        };
        self.names(directory)?.insert(name.to_owned(), node);
        Ok(node)
    }

    /// Writes at a position, and fills a gap before it with zeros.
    pub(crate) fn write(&mut self, node: Node, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        let end = at.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        if end > self.size(node) {
            self.resize(node, end)?;
        }
        let Content::File(file) = &mut self.entries[node].content else { return Err(Errno::ISDIR) };
        // The end is within the file, so both fit the machine's word.
        file[at as usize..end as usize].copy_from_slice(bytes);
        Ok(())
    }

    /// Cuts a file, or fills it with zeros, to a size.
    pub(crate) fn resize(&mut self, node: Node, size: u64) -> Result<(), Errno> {
        let old = self.file(node)?.len() as u64;
        if size > old {
            self.spend(size - old)?;
        } else {
            self.budget += old - size;
        }
        let size = usize::try_from(size).map_err(|_| Errno::FBIG)?;
        let Content::File(file) = &mut self.entries[node].content else { return Err(Errno::ISDIR) };
        file.resize(size, 0);
        // The budget must bound the memory. A file keeps up to four times its bytes, so that one which is cut and
        // grown again by a little is not copied each time.
        if file.capacity() / 4 > size {
            file.shrink_to(2 * size);
        }
        Ok(())
    }

    /// Removes a name: of a file, or of an empty directory.
    pub(crate) fn remove(&mut self, directory: Node, name: &str, is_directory: bool) -> Result<(), Errno> {
        let node = self.child(directory, name)?.ok_or(Errno::NOENT)?;
        match (self.is_directory(node), is_directory) {
            (true, false) => return Err(Errno::ISDIR),
            (false, true) => return Err(Errno::NOTDIR),
            (true, true) if !self.list(node)?.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.unname(directory, name, node)
    }

    fn unname(&mut self, directory: Node, name: &str, node: Node) -> Result<(), Errno> {
        self.names(directory)?.remove(name);
        self.entries[node].named = false;
        self.reap(node);
        Ok(())
    }

    /// Gives a node another name; what had it before is replaced if it is of the same kind. The longest path below the
    /// node has `below` bytes.
    pub(crate) fn rename(&mut self, from: (Node, &str), to: (Node, &str), below: usize) -> Result<(), Errno> {
        check_name(to.1)?;
        let node = self.child(from.0, from.1)?.ok_or(Errno::NOENT)?;
        let is_directory = self.is_directory(node);
        if is_directory && self.is_within(to.0, node) {
            return Err(Errno::INVAL);
        }
        if !self.entries[to.0].named {
            return Err(Errno::NOENT);
        }
        self.check_path(to.0, to.1.len() + 1 + below)?;
        match self.child(to.0, to.1)? {
            Some(same) if same == node => return Ok(()),
            Some(_) => self.remove(to.0, to.1, is_directory)?,
            None => {}
        }
        self.names(from.0)?.remove(from.1);
        self.names(to.0)?.insert(to.1.to_owned(), node);
        (self.entries[node].parent, self.entries[node].name_bytes) = (to.0, to.1.len() + 1);
        Ok(())
    }

    /// True if `node` is `outer` or is below it.
    fn is_within(&self, mut node: Node, outer: Node) -> bool {
        while node != outer {
            if node == ROOT {
                return false;
            }
            node = self.entries[node].parent;
        }
        true
    }

    /// Refuses a path of which `added` bytes come after a directory, if it is too long: so no sum of paths is large.
    fn check_path(&self, mut directory: Node, added: usize) -> Result<(), Errno> {
        let mut bytes = added;
        while directory != ROOT {
            bytes += self.entries[directory].name_bytes;
            directory = self.entries[directory].parent;
        }
        if bytes > limits::PATH_BYTES_MAX { Err(Errno::NAMETOOLONG) } else { Ok(()) }
    }

    /// Directories between a directory and the root.
    pub(crate) fn depth(&self, mut directory: Node) -> u64 {
        let mut depth = 0;
        while directory != ROOT {
            directory = self.entries[directory].parent;
            depth += 1;
        }
        depth
    }

    /// Bytes of the longest path below a node, and the number of nodes from it on.
    pub(crate) fn reach(&self, node: Node) -> (usize, u64) {
        let (mut longest, mut seen) = (0, 0);
        let mut left = vec![(0, node)];
        while let Some((bytes, node)) = left.pop() {
            (longest, seen) = (longest.max(bytes), seen + 1);
            if let Ok(names) = self.list(node) {
                left.extend(names.iter().map(|(name, child)| (bytes + name.len() + 1, *child)));
            }
        }
        (longest, seen)
    }

    pub(crate) fn open(&mut self, node: Node) {
        self.entries[node].open += 1;
    }

    pub(crate) fn close(&mut self, node: Node) {
        self.entries[node].open -= 1;
        self.reap(node);
    }

    /// Frees a node that has neither a name nor a descriptor.
    fn reap(&mut self, node: Node) {
        if self.entries[node].open == 0 && !self.entries[node].named {
            self.budget += self.size(node);
            self.entries[node].content = Content::Free;
            self.free.push(node);
        }
    }

    /// Takes everything below a directory out of the tree: paths relative to it, in order.
    pub(crate) fn take_below(&mut self, directory: Node) -> Vec<(String, Option<Vec<u8>>)> {
        let mut all = Vec::new();
        let mut left = vec![(String::new(), directory)];
        while let Some((path, node)) = left.pop() {
            match &mut self.entries[node].content {
                Content::File(bytes) => all.push((path, Some(std::mem::take(bytes)))),
                Content::Directory(names) => {
                    let below =
                        |name: &str| if path.is_empty() { name.into() } else { format!("{path}/{name}") };
                    left.extend(names.iter().map(|(name, node)| (below(name), *node)));
                    if node != directory {
                        all.push((path, None));
                    }
                }
                Content::Free => {}
            }
        }
        all.sort();
        all
    }
}

/// A name that a directory can hold.
fn check_name(name: &str) -> Result<(), Errno> {
    match name {
        "" | "." | ".." => Err(Errno::INVAL),
        _ if name.len() > limits::NAME_BYTES_MAX => Err(Errno::NAMETOOLONG),
        _ if name.contains(['/', '\0']) => Err(Errno::INVAL),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_cut_give_their_memory_back() {
        let mut tree = Tree::new(1 << 20);
        let mut held = 0;
        for index in 0..100 {
            let node = tree.create(ROOT, &index.to_string(), false).expect("there is room");
            tree.resize(node, 1 << 19).expect("the budget came back");
            tree.resize(node, 100).expect("it is smaller");
            let Content::File(bytes) = &tree.entries[node].content else { panic!("a file") };
            held += bytes.capacity();
        }
        assert!(held <= 4 * 100 * 100, "{held} bytes");
    }
}

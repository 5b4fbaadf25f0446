//! What this process still holds, asked of the operating system. Linux only, as `/proc` is.

use std::fs;
use std::io;
use std::net::SocketAddr;

/// How many files, sockets included, are open.
///
/// # Errors
///
/// Those of reading `/proc/self/fd`.
pub fn open_files() -> io::Result<usize> {
    // One of them is the folder itself, while it is read.
    Ok(fs::read_dir("/proc/self/fd")?.count() - 1)
}

/// How many threads run.
///
/// # Errors
///
/// Those of reading `/proc/self/task`.
pub fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// How many sockets of this process have this port of loopback at one of their ends. Unlike
/// [`open_files`] it means something while other tests run beside this one.
///
/// # Errors
///
/// Those of reading `/proc/self`.
pub fn sockets_at(addr: SocketAddr) -> io::Result<usize> {
    let mut own = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // It may have been closed since it was listed.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let name = target.to_string_lossy().into_owned();
        let inode = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        own.extend(inode.map(str::to_owned));
    }
    let port = format!(":{:04X}", addr.port());
    let table = fs::read_to_string("/proc/self/net/tcp")?;
    let at_port = table.lines().skip(1).filter(|line| {
        // sl, local, remote, state, queues, timer, retransmits, uid, timeout, inode
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ends = fields.get(1..3).unwrap_or_default();
        let inode = fields.get(9).copied().unwrap_or_default();
        ends.iter().any(|end| end.ends_with(&port)) && own.iter().any(|own| own == inode)
    });
    Ok(at_port.count())
}

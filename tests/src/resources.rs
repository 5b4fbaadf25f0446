//! Open files, threads and sockets of this process, read from `/proc` (Linux only).

use std::fs;
use std::io;
use std::net::SocketAddr;

/// The number of open files, sockets included.
///
/// # Errors
///
/// Those of reading `/proc/self/fd`.
pub fn open_files() -> io::Result<usize> {
    // Reading the folder opens one more file, which is not counted.
    Ok(fs::read_dir("/proc/self/fd")?.count() - 1)
}

/// The number of running threads.
///
/// # Errors
///
/// Those of reading `/proc/self/task`.
pub fn threads() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/task")?.count())
}

/// The number of sockets of this process with this loopback port at one of their ends. Unlike
/// [`open_files`], it does not depend on other tests in the same process.
///
/// # Errors
///
/// Those of reading `/proc/self`.
pub fn sockets_at(addr: SocketAddr) -> io::Result<usize> {
    let mut own = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        // The file may have been closed since it was listed.
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

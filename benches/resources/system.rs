//! What the system says about a process.

use std::error::Error;
use std::fs;
use std::time::Duration;

/// Resident memory in bytes.
pub(crate) fn resident(pid: u32) -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.ok_or("no VmRSS")?.parse::<usize>()? * 1024)
}

/// Processor time of all threads, user and system.
pub(crate) fn processor(pid: u32) -> Result<Duration, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold anything.
    let (_, behind) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let mut fields = behind.split(' ');
    let user: u64 = fields.nth(11).ok_or("no utime")?.parse()?;
    let system: u64 = fields.next().ok_or("no stime")?.parse()?;
    Ok(Duration::from_millis((user + system) * 1000 / TICKS))
}

/// Open descriptors.
pub(crate) fn descriptors(pid: u32) -> Result<usize, Box<dyn Error>> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// Clock ticks in a second, as Linux tells processor time on every architecture.
const TICKS: u64 = 100;

//! The CPUs of this machine.

use std::path::Path;

use crate::files;

/// The CPUs that are online, from a list such as `0-3,8`.
pub fn online() -> Vec<i32> {
    let text = files::read(Path::new("/sys/devices/system/cpu/online"), 4096);
    let cpus = text.got().map(|bytes| parse(&String::from_utf8_lossy(bytes)));
    cpus.filter(|cpus| !cpus.is_empty()).unwrap_or_else(|| vec![0])
}

fn parse(list: &str) -> Vec<i32> {
    /// CPUs of the largest kernels (`CONFIG_NR_CPUS`).
    const CPUS_MAX: usize = 8_192;
    let ranges = list.trim().split(',').filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(first.parse::<i32>().ok()?..=last.parse::<i32>().ok()?)
    });
    ranges.flatten().take(CPUS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_come_in_ranges() {
        assert_eq!(parse("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert!(parse("").is_empty() && parse("x-y").is_empty());
        assert_eq!(parse("0-999999999").len(), 8_192);
    }
}

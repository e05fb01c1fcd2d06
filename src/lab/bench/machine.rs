//! Where a study took place.
#![expect(clippy::disallowed_methods, reason = "this is where the machine is looked at")]

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The machine, the program, the day.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Name of the CPU; `None` where the kernel does not tell.
    pub cpu: Option<String>,
    /// CPUs this process may use; `None` where the kernel does not tell.
    pub cpus: Option<u32>,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Kernel and architecture.
    pub kernel: String,
    /// Load average of the last minute when the study began, or was gone on with.
    pub load_average: Option<f64>,
    /// When that was, RFC 3339.
    pub date: String,
    /// Version of stallscope.
    pub version: String,
    /// Whether it was built for release.
    pub is_release: bool,
    /// Version of librdkafka.
    pub librdkafka: String,
    /// The command with which the study was begun, as a shell would take it.
    pub command: String,
}

impl Machine {
    /// This one, now.
    pub fn look(command: String) -> Self {
        let uname = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        let info = rustix::system::sysinfo();
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let loadavg = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: cpu_name(&cpuinfo),
            cpus: std::thread::available_parallelism().ok().map(|count| count.get() as u32),
            memory_bytes: info.totalram as u64 * u64::from(info.mem_unit),
            kernel: format!(
                "{} {}, {}",
                text(uname.sysname()),
                text(uname.release()),
                text(uname.machine())
            ),
            load_average: loadavg.split_whitespace().next().and_then(|word| word.parse().ok()),
            date: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            is_release: !cfg!(debug_assertions),
            librdkafka: rdkafka::util::get_rdkafka_version().1,
            command,
        }
    }
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == "model name").then(|| value.trim().to_owned())
    };
    cpuinfo.lines().find_map(value)
}

/// SHA-256 of the running program: runs of one build are not mixed with those of another.
///
/// # Errors
/// When its file cannot be read.
pub fn build_hash() -> std::io::Result<String> {
    use std::fmt::Write as _;
    let mut file = std::fs::File::open("/proc/self/exe")?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut file, &mut buffer)? {
            0 => break,
            bytes => hasher.update(&buffer[..bytes]),
        }
    }
    let mut text = String::new();
    for byte in hasher.finalize() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_named_where_the_kernel_does() {
        assert_eq!(cpu_name("processor\t: 0\nmodel name\t: A B\n").as_deref(), Some("A B"));
        assert_eq!(cpu_name("BogoMIPS\t: 5\n"), None);
    }

    #[test]
    fn this_machine_is_one() {
        let machine = Machine::look(String::from("x"));
        assert!(machine.cpus > Some(0) && machine.memory_bytes > 1 << 20, "{machine:?}");
        assert!(machine.kernel.starts_with("Linux "), "{machine:?}");
        assert_eq!(build_hash().unwrap().len(), 64);
    }
}

//! What a scenario takes that not every machine has.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::catalogue::{Need, Place, Scenario};

/// Where programs of administrators are, which a user's PATH may leave out.
const ADMIN_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Why `scenario` cannot be run here, in one sentence.
pub fn obstacle(scenario: &Scenario, allow_host_changes: bool) -> Option<String> {
    place(scenario.place)
        .or_else(|| scenario.needs.iter().find_map(|need| lacks(*need, allow_host_changes)))
}

fn place(place: Place) -> Option<String> {
    match place {
        Place::Host => None,
        Place::Netns(_) => {
            lacks(Need::Root, false).or_else(|| lacks(Need::Program("ip", "iproute2"), false))
        }
    }
}

fn lacks(need: Need, allow_host_changes: bool) -> Option<String> {
    match need {
        Need::Root if rustix::process::geteuid().is_root() => None,
        Need::Root => Some(String::from("it takes root")),
        Need::Cgroup(controller) if has_cgroup(Path::new("/sys/fs/cgroup"), controller) => None,
        Need::Cgroup(controller) => {
            Some(format!("there is no cgroup controller {controller} that may be written to"))
        }
        Need::HostChange(_) if allow_host_changes => None,
        Need::HostChange(what) => {
            Some(format!("it changes {what} for the whole host, which takes --allow-host-changes"))
        }
        Need::Program(program, _) if find_program(program).is_some() => None,
        Need::Program(program, package) => {
            Some(format!("it takes the program {program} (package {package})"))
        }
        Need::Conntrack if Path::new("/proc/sys/net/netfilter/nf_conntrack_max").exists() => None,
        Need::Conntrack => Some(String::from("the kernel has no connection tracking")),
    }
}

/// Whether a cgroup of this controller can be made: v1 has a folder for each, v2 lists them in one
/// file. The freezer of v2 is part of every cgroup and listed nowhere (kernel, cgroup-v2.rst).
fn has_cgroup(root: &Path, controller: &str) -> bool {
    let writable = |folder: &Path| access(folder, Access::WRITE_OK).is_ok();
    if writable(&root.join(controller)) {
        return true;
    }
    #[expect(clippy::disallowed_methods, reason = "this is where the machine is looked at")]
    let listed = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    let on_v2 = !listed.is_empty()
        && (controller == "freezer" || listed.split_whitespace().any(|one| one == controller));
    on_v2 && writable(root)
}

/// Where `program` is.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(ADMIN_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| access(file, Access::EXEC_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_said() {
        let cases = [
            (Need::Program("no-such-program-here", "nopackage"), false, Some("nopackage")),
            (Need::Program("sh", "dash"), false, None),
            (Need::HostChange("fs.file-max"), false, Some("--allow-host-changes")),
            (Need::HostChange("fs.file-max"), true, None),
            (Need::Cgroup("no-such-controller"), false, Some("no-such-controller")),
        ];
        for (need, allow, expected) in cases {
            let said = lacks(need, allow);
            match expected {
                None => assert_eq!(said, None, "{need:?}"),
                Some(word) => assert!(said.clone().is_some_and(|it| it.contains(word)), "{said:?}"),
            }
        }
    }

    #[test]
    fn a_cgroup_is_found_in_both_versions() {
        let root = tempfile::tempdir().unwrap();
        assert!(!has_cgroup(root.path(), "cpu") && !has_cgroup(root.path(), "freezer"));
        #[expect(clippy::disallowed_methods, reason = "the test lays down a tree")]
        std::fs::write(root.path().join("cgroup.controllers"), "cpu io\n").unwrap();
        assert!(has_cgroup(root.path(), "cpu") && has_cgroup(root.path(), "freezer"));
        assert!(!has_cgroup(root.path(), "memory"));
        std::fs::create_dir(root.path().join("memory")).unwrap();
        assert!(has_cgroup(root.path(), "memory"));
    }
}

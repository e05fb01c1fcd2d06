//! Full names for functions of which debug information tells only the last part.
//!
//! With line tables alone (`debug = "line-tables-only"`, and of inlined functions in general) DWARF
//! has `poll_inner<…>` or `{async_block#0}` where the symbol table would have a path. The source
//! file gives most of it back: modules of Rust are files.

/// The name of a function with the path of its module, where only the source file tells that, and
/// then without its type parameters, which are long and repeat what the frames around it say.
pub fn qualified(function: &str, file: Option<&str>) -> String {
    let (base, parameters) = split_parameters(function);
    if base.is_empty() || base.contains("::") || base.contains(' ') {
        return function.to_owned();
    }
    let Some(module) = file.and_then(module_of) else { return function.to_owned() };
    if module.is_empty() {
        return format!("{base}{parameters}");
    }
    format!("{module}::{base}")
}

/// `poll<T>` in two.
fn split_parameters(function: &str) -> (&str, &str) {
    function.split_at(function.find('<').unwrap_or(function.len()))
}

/// The path of a module by its file: with the crate where the folder's name tells it (the standard
/// library, crates of a registry), else from the crate's root on.
fn module_of(file: &str) -> Option<String> {
    let path = file.strip_suffix(".rs")?;
    let (root, inner) = path.rsplit_once("/src/")?;
    let folder = root.rsplit('/').next().unwrap_or_default();
    let known =
        root.contains("/registry/") || root.contains("/rustc/") || root.contains("/git/checkouts/");
    let of_crate = known.then(|| without_version(folder).replace('-', "_"));
    let modules = inner.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main"));
    let path: Vec<&str> = of_crate.as_deref().into_iter().chain(modules).collect();
    Some(path.join("::"))
}

/// `tokio-1.54.1` without its version.
fn without_version(folder: &str) -> &str {
    match folder.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => name,
        _ => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_gets_the_path_of_its_file() {
        let tokio = "/root/.cargo/registry/src/index.crates.io-1949/tokio-1.54.1/src/runtime/task/harness.rs";
        let uring = "/c/registry/src/x/tokio-uring-0.5.0/src/runtime/mod.rs";
        let cases = [
            ("poll_inner<A, B<C>>", Some(tokio), "tokio::runtime::task::harness::poll_inner"),
            ("block_on<F>", Some(uring), "tokio_uring::runtime::block_on"),
            (
                "lock",
                Some("/rustc/59807616/library/std/src/sys/sync/mutex/futex.rs"),
                "std::sys::sync::mutex::futex::lock",
            ),
            (
                "{async_block#0}",
                Some("/home/me/server/src/serve/ring.rs"),
                "serve::ring::{async_block#0}",
            ),
            ("main<T>", Some("/home/me/server/src/main.rs"), "main<T>"),
            ("a::b<C>", Some(tokio), "a::b<C>"),
            ("<A as B>::c", Some(tokio), "<A as B>::c"),
            ("malloc", Some("./malloc/malloc.c"), "malloc"),
            ("lock", None, "lock"),
            ("", Some(tokio), ""),
        ];
        for (function, file, expected) in cases {
            assert_eq!(qualified(function, file), expected);
        }
    }
}

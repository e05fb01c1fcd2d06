//! The colours of frames: by whose code it is, and a shade by its name, the same everywhere.

use inferno::flamegraph::color::{Color, PaletteMap};

/// Text on them is near black: all are light.
const KERNEL: [u8; 3] = [236, 150, 100];
const STANDARD: [u8; 3] = [201, 208, 217];
const RUST: [u8; 3] = [134, 187, 226];
const OTHER: [u8; 3] = [233, 207, 131];
/// How far shades lie apart at most.
const SHADE: u8 = 24;

/// A colour for every frame of some lines (`outer;inner count`), marks in words.
pub fn of(lines: &[String]) -> PaletteMap {
    let mut map = PaletteMap::default();
    // The renderer's own outermost frame has no name.
    map.insert("", Color { r: 222, g: 226, b: 231 });
    for line in lines {
        let stack = line.rsplit_once(' ').map_or(line.as_str(), |(stack, _)| stack);
        for name in stack.split(';') {
            if map.get(name).is_none() {
                map.insert(name, colour(name));
            }
        }
    }
    map
}

fn colour(name: &str) -> Color {
    let [r, g, b] = base(name).map(|value| value.saturating_add(shade(name)));
    Color { r, g, b }
}

fn base(name: &str) -> [u8; 3] {
    let standard = ["core::", "std::", "alloc::", "<core::", "<std::", "<alloc::"];
    if name.contains(" [kernel]") {
        KERNEL
    } else if standard.iter().any(|prefix| name.starts_with(prefix)) {
        STANDARD
    } else if name.contains("::") {
        RUST
    } else {
        OTHER
    }
}

/// FNV-1a, so that a name has its shade in every flamegraph and on every machine.
fn shade(name: &str) -> u8 {
    let hash = name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash >> 16) as u8 % SHADE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_told_apart_by_whose_it_is() {
        let cases = [
            ("schedule [kernel]", KERNEL),
            ("core::fmt::write [kernel]", KERNEL),
            ("std::thread::sleep", STANDARD),
            ("<alloc::vec::Vec<T> as Clone>::clone", STANDARD),
            ("tokio::task::yield_now", RUST),
            ("rd_kafka_poll", OTHER),
        ];
        for (name, expected) in cases {
            assert_eq!(base(name), expected, "{name}");
            let Color { r, .. } = of(&[format!("main;{name} 3")]).get(name).expect("a colour");
            assert!((expected[0]..expected[0].saturating_add(SHADE)).contains(&r), "{name}");
        }
    }
}

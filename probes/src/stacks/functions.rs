//! Where functions begin, from the sorted index of a file's unwind tables (`.eh_frame_hdr`).

use super::code::Tables;

/// First addresses of all functions of one file, as they lie in the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Functions {
    begins: Vec<u64>,
}

/// `DW_EH_PE_datarel | DW_EH_PE_sdata4`: how every linker writes the index (Linux Standard Base, "Exception Frames").
const INDEX_ENCODING: u8 = 0x3b;
/// Version, three encodings, then the pointer to `.eh_frame` and the number of entries, four bytes
/// each as they are written with [`INDEX_ENCODING`].
const HEADER_BYTES: usize = 12;

impl Functions {
    /// Of a file's tables; none where there is no index in the usual encoding.
    pub fn of(tables: &Tables) -> Self {
        let sections = &tables.sections;
        let (Some(header), Some(range)) = (&sections.eh_frame_hdr, &sections.eh_frame_hdr_svma)
        else {
            return Self::default();
        };
        Self { begins: parse(header, range.start.wrapping_add(tables.bias)) }
    }

    /// The first address of the function that holds `address`.
    pub fn begin_of(&self, address: u64) -> Option<u64> {
        let next = self.begins.partition_point(|begin| *begin <= address);
        self.begins.get(next.checked_sub(1)?).copied()
    }
}

fn parse(header: &[u8], base: u64) -> Vec<u64> {
    let Some([1, _, _, INDEX_ENCODING]) = header.first_chunk() else { return Vec::new() };
    let entries = header.get(HEADER_BYTES..).unwrap_or_default();
    let begins = entries.chunks_exact(8).filter_map(|entry| {
        let offset = i32::from_ne_bytes(*entry.first_chunk()?);
        Some(base.wrapping_add_signed(offset.into()))
    });
    let mut begins: Vec<u64> = begins.collect();
    begins.sort_unstable();
    begins
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_belongs_to_the_function_that_begins_before_it() {
        let mut header = vec![1, 0x1b, 0x03, INDEX_ENCODING, 0, 0, 0, 0, 2, 0, 0, 0];
        for begin in [0x40_i32, -0x20] {
            header.extend(begin.to_ne_bytes());
            header.extend(0_i32.to_ne_bytes());
        }
        let functions = Functions { begins: parse(&header, 0x1000) };
        assert_eq!(functions.begin_of(0xfdf), None);
        assert_eq!(functions.begin_of(0xfe0), Some(0xfe0));
        assert_eq!(functions.begin_of(0x103f), Some(0xfe0));
        assert_eq!(functions.begin_of(0x1040), Some(0x1040));
        assert!(parse(&[], 0).is_empty() && parse(&[1, 0, 0, 0x10, 9], 0).is_empty());
    }
}

//! Frames as version 4 wrote them.

use serde::{Deserialize, Serialize};
use stallscope_probes::sample::Sample;

use super::super::event::{EndReason, ProfileWindow};
use super::{Frame, Header};
use crate::profile::stacks::{Kind, Maker};

/// What a frame held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FrameV4 {
    Header(Box<Header>),
    Sample(Box<Sample>),
    Profile(WindowV4),
    End(EndReason),
}

/// A profile, always the process's own of its CPU time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowV4 {
    pub begin_ns: u64,
    pub end_ns: u64,
    pub hz: u32,
    pub folded: String,
}

impl From<FrameV4> for Frame {
    fn from(frame: FrameV4) -> Self {
        match frame {
            FrameV4::Header(header) => Self::Header(header),
            FrameV4::Sample(sample) => Self::Sample(sample),
            FrameV4::End(reason) => Self::End(reason),
            FrameV4::Profile(WindowV4 { begin_ns, end_ns, hz, folded }) => {
                let (kind, maker, notes) = (Kind::Cpu, Maker::Itself, Vec::new());
                Self::Profile(ProfileWindow { begin_ns, end_ns, kind, maker, hz, folded, notes })
            }
        }
    }
}

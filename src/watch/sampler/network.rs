//! The target's network namespace: listeners, connections, the target's own connections.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use stallscope_probes::sample::{Holder, LISTENERS_MAX, ListenerRaw, PeerRaw, ProbeId, SocketsRaw};
use stallscope_probes::sockets::{self, Diag, Peers, Tracker, Wanted, procnet};
use stallscope_probes::{Probe, Reading, Why, fds};

use super::costs::{Ask, Paces, timed};
use crate::watch::session::Probes;

/// Everything that is asked of the namespace.
#[derive(Debug)]
pub(super) struct Network {
    proc_root: PathBuf,
    pid: i32,
    /// A port the user named: its listeners count even when fds cannot be listed.
    port: Option<u16>,
    from: Source,
    range: Reading<(u16, u16)>,
    tracker: Tracker,
    followed: Peers,
    /// Inodes of all the listeners of the namespace at the last look (as many as one dump gives).
    seen: HashSet<u32>,
    /// Ports on which the target listened at some time: who listens there after it has taken over.
    once_own: BTreeSet<u16>,
    pub(super) listeners: Probe<Vec<ListenerRaw>>,
    pub(super) sockets: Probe<SocketsRaw>,
    pub(super) peers: Probe<Vec<PeerRaw>>,
    /// How often all connections were asked who waits for an answer.
    asked_answers: u8,
    /// When the last whole census began: in between there are those of the served ports alone.
    whole_ns: u64,
    /// When the listeners were last dumped: in between each is asked for by its address.
    dumped_ns: u64,
}

#[derive(Debug)]
enum Source {
    Diag(Reading<Diag>),
    /// `/proc/PID/net/tcp`.
    Procfs,
}

const MS: u64 = 1_000_000;

/// A new listener is seen within this time.
const DUMP_EVERY_NS: u64 = 500 * MS;
/// On suspicion a new listener, another process's on the same port perhaps, is seen within this time.
const DUMP_NOW_EVERY_NS: u64 = 250 * MS;
/// More listeners than this are cheaper to dump than to ask for one by one.
const ASKED_ONE_BY_ONE_MAX: usize = 16;

/// A census of no more sockets than this is cheap: it is taken whole, and with what tells which
/// connections wait for an answer, always. Of more sockets only the served ones are asked for that, in
/// a walk of their own that comes at its own pace.
const FEW_SOCKETS_MAX: u32 = 2_000;
/// With more sockets the served ports alone are looked at on suspicion, but not for longer than this.
const WHOLE_EVERY_NS: u64 = 2_000 * MS;
/// Once a destination has used up this share of the ephemeral ports, percent, the census keeps an
/// eye on them: a server that makes a connection for each request fills the rest within a second.
const PORTS_PRESSED_PERCENT: u64 = 70;
/// Censuses at the beginning that come as soon as on suspicion, as long as there are savings: the first
/// reads are dear, and the next one would come seconds later.
const FIRST_CENSUSES: u8 = 4;
/// So often then, suspicion or not, as long as there are savings.
const PRESSED_EVERY_NS: u64 = 1_000 * MS;

impl Network {
    pub(super) fn new(proc_root: &Path, pid: i32, port: Option<u16>, probes: Probes) -> Self {
        Self {
            from: match probes {
                Probes::Auto => Source::Diag(Diag::open(proc_root, pid)),
                Probes::Procfs => Source::Procfs,
            },
            range: sockets::local_port_range(proc_root, pid),
            tracker: Tracker::default(),
            followed: Peers::default(),
            seen: HashSet::new(),
            once_own: BTreeSet::new(),
            listeners: Probe::not_sampled("not read yet"),
            sockets: Probe::not_sampled("not read yet"),
            peers: Probe::not_sampled("not read yet"),
            asked_answers: 0,
            whole_ns: 0,
            dumped_ns: 0,
            proc_root: proc_root.to_owned(),
            pid,
            port,
        }
    }

    /// Lets go of the namespace: a socket in it would keep it alive after its last process.
    pub(super) fn release(&mut self) {
        if let Source::Diag(diag) = &mut self.from {
            *diag = Reading::absent(Why::Gone, "the process has exited");
        }
    }

    /// Whether the target lives in another network namespace.
    pub(super) fn foreign(&self) -> bool {
        match &self.from {
            Source::Diag(diag) => diag.got().is_some_and(Diag::foreign),
            Source::Procfs => false,
        }
    }

    /// Reads the listeners; true when there is a new one in the namespace, whose fd the census may
    /// not have seen.
    pub(super) fn read_listeners(
        &mut self,
        census: &Reading<fds::Census>,
        paces: &mut Paces,
        ask: Ask<'_>,
    ) -> bool {
        if !paces.is_due(ProbeId::Listeners, ask) {
            return false;
        }
        !self.ask_listeners_again(paces, ask) && self.dump_listeners(census, paces, ask)
    }

    /// Lists the listeners of the namespace, due or not; true when there is a new one.
    pub(super) fn dump_listeners(
        &mut self,
        census: &Reading<fds::Census>,
        paces: &mut Paces,
        ask: Ask<'_>,
    ) -> bool {
        self.dumped_ns = crate::watch::now_ns();
        let mut has_new = false;
        let (from, port, seen) = (&self.from, self.port, &mut self.seen);
        let once_own = &mut self.once_own;
        // Connections that share a local port were accepted there, by whoever listens on it.
        let peers = self.peers.got().into_iter().flatten();
        let mut locals: Vec<u16> = peers.map(|peer| peer.local_port).collect();
        locals.sort_unstable();
        let shared = locals.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        once_own.extend(shared.take(ONCE_OWN_MAX.saturating_sub(once_own.len())));
        let (proc_root, pid) = (&self.proc_root, self.pid);
        let listeners = paces.read(ProbeId::Listeners, ask, || {
            let all = match from {
                Source::Diag(diag) => diag.as_ref().and_then(Diag::listeners),
                Source::Procfs => procnet::listeners(proc_root, pid),
            };
            all.and_then(|all| {
                has_new = all.iter().any(|listener| !seen.contains(&listener.inode));
                if has_new || seen.len() != all.len() {
                    *seen = all.iter().map(|listener| listener.inode).collect();
                }
                own_first(all, census, port, once_own)
            })
        });
        self.listeners = listeners;
        has_new
    }

    /// Asks for each known listener by its address; false when a dump is called for: the last one is
    /// old, or some listener is closed or shares its address.
    fn ask_listeners_again(&mut self, paces: &mut Paces, ask: Ask<'_>) -> bool {
        let every_ns = if ask.suspicious { DUMP_NOW_EVERY_NS } else { DUMP_EVERY_NS };
        let old = crate::watch::now_ns().saturating_sub(self.dumped_ns) >= every_ns;
        let (Source::Diag(Reading::Got(diag)), Some(known)) = (&self.from, self.listeners.got())
        else {
            return false;
        };
        if old || known.is_empty() || known.len() > ASKED_ONE_BY_ONE_MAX {
            return false;
        }
        let mut is_whole = false;
        let again = paces.read(ProbeId::Listeners, ask, || {
            diag.listeners_again(known).map(|again| {
                is_whole = again.iter().all(Option::is_some);
                again.into_iter().flatten().collect()
            })
        });
        if is_whole {
            self.listeners = again;
        }
        is_whole
    }

    /// Reads connections and ephemeral ports when that is due; of many sockets the served ports apart,
    /// which is cheaper and so comes oftener.
    pub(super) fn read_sockets(
        &mut self,
        census: &Reading<fds::Census>,
        paces: &mut Paces,
        ask: Ask<'_>,
    ) {
        let now_ns = crate::watch::now_ns();
        let whole_age_ns = now_ns.saturating_sub(self.whole_ns);
        let is_new = self.asked_answers < FIRST_CENSUSES;
        let tells_answers = matches!(self.from, Source::Diag(_));
        let is_due = |probe, suspicious| {
            // The text has no `tcp_info`: without suspicion a walk of its own would be for nothing.
            let is_of_use = probe != ProbeId::Clients || tells_answers || ask.suspicious;
            is_of_use && paces.is_due(probe, Ask { suspicious, ..ask })
        };
        let when = When { suspicious: ask.suspicious, whole_age_ns, is_new };
        let Some(look) = Look::choose(self.sockets.got(), when, is_due) else { return };
        let range = match &self.range {
            Reading::Got(range) => *range,
            Reading::Absent(absence) => {
                self.sockets.reading = Reading::Absent(absence.clone());
                return;
            }
        };
        let ports = self.served_ports();
        let own_inodes = census.got().map(|census| &census.socket_inodes);
        let answers = look == Look::Whole { answers: true };
        let wanted = Wanted { own_inodes, answers, ..Wanted::new(&ports, range) };
        let reader = Reader { source: &self.from, proc_root: &self.proc_root, pid: self.pid };
        let (tracker, followed) = (&mut self.tracker, &mut self.followed);
        if look.is_whole() {
            self.whole_ns = now_ns;
            self.sockets = paces.read(ProbeId::Connections, ask, || {
                reader.connections(&wanted).map(|whole| {
                    if wanted.own_inodes.is_some() {
                        followed.found(&whole);
                    }
                    tracker.update(whole)
                })
            });
        }
        let again = look == Look::WholeAndServed && tells_answers;
        if look == Look::Served || again {
            let asking = Wanted { answers: true, ..wanted };
            let before = &self.sockets.reading;
            self.sockets = paces.read(ProbeId::Clients, ask, || {
                before.clone().and_then(|before| {
                    let alive = reader.connections_alive(&asking);
                    alive.map(|alive| tracker.update_alive(alive, &before))
                })
            });
        }
        let were_asked = answers || again || look == Look::Served;
        self.asked_answers = self.asked_answers.saturating_add(u8::from(were_asked));
    }

    /// The inodes of the target's listeners, as far as it is known which are its own.
    pub(super) fn own_listeners(&self) -> Vec<u32> {
        let all = self.listeners.got().into_iter().flatten();
        let own = all.filter(|listener| listener.holder == Holder::Target);
        own.map(|listener| listener.inode).collect()
    }

    fn served_ports(&self) -> Vec<u16> {
        let own = self.listeners.got().into_iter().flatten();
        let ports: BTreeSet<u16> = own
            .filter(|listener| listener.holder != Holder::Other)
            .map(|listener| listener.local.port())
            .collect();
        ports.into_iter().collect()
    }

    /// Asks for each connection of the target's own making.
    pub(super) fn read_peers(
        &mut self,
        census: &Reading<fds::Census>,
        paces: &mut Paces,
        ask: Ask<'_>,
    ) {
        if !paces.is_due(ProbeId::Peers, ask) {
            return;
        }
        let (from, followed) = (&self.from, &mut self.followed);
        if let Some(absence) = census.absence() {
            self.peers = timed(|| Reading::Absent(absence.clone()));
            return;
        }
        self.peers = match from {
            Source::Diag(Reading::Got(diag)) => {
                paces.read(ProbeId::Peers, ask, || followed.refresh(diag))
            }
            Source::Diag(Reading::Absent(absence)) => timed(|| Reading::Absent(absence.clone())),
            Source::Procfs => {
                Probe::not_sampled("only sock_diag tells the state of one connection")
            }
        };
    }
}

/// Where connections are read from.
#[derive(Debug, Clone, Copy)]
struct Reader<'a> {
    source: &'a Source,
    proc_root: &'a Path,
    pid: i32,
}

impl Reader<'_> {
    fn connections(&self, wanted: &Wanted<'_>) -> Reading<sockets::Census> {
        match self.source {
            Source::Diag(diag) => diag.as_ref().and_then(|diag| diag.connections(wanted)),
            Source::Procfs => procnet::connections(self.proc_root, self.pid, wanted),
        }
    }

    fn connections_alive(&self, wanted: &Wanted<'_>) -> Reading<sockets::Alive> {
        match self.source {
            Source::Diag(diag) => diag.as_ref().and_then(|diag| diag.connections_alive(wanted)),
            Source::Procfs => procnet::connections_alive(self.proc_root, self.pid, wanted),
        }
    }
}

/// Which census to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The served ports, the ephemeral ports and the target's own connections; with or without
    /// asking all these sockets who waits for an answer.
    Whole { answers: bool },
    /// The same without, and then the served ports alone with answers.
    WholeAndServed,
    /// The served ports alone, with answers.
    Served,
}

/// What a look depends on beside the last one.
#[derive(Debug, Clone, Copy)]
struct When {
    suspicious: bool,
    /// Since the last whole census.
    whole_age_ns: u64,
    /// Whether hardly any census has told who waits yet: a stall that is older than the watch shows
    /// when a few have been compared.
    is_new: bool,
}

impl Look {
    /// `is_due` tells whether a probe is due, given whether that is urgent.
    fn choose(
        last: Option<&SocketsRaw>,
        when: When,
        is_due: impl Fn(ProbeId, bool) -> bool,
    ) -> Option<Self> {
        let When { suspicious, whole_age_ns, is_new } = when;
        let is_pressing = is_pressed(last) && whole_age_ns >= PRESSED_EVERY_NS;
        let Some(last) = last else {
            return is_due(ProbeId::Connections, suspicious)
                .then_some(Self::Whole { answers: false });
        };
        if !last.truncated && last.total <= FEW_SOCKETS_MAX {
            let is_due = is_due(ProbeId::Connections, suspicious || is_new || is_pressing);
            return is_due.then_some(Self::Whole { answers: true });
        }
        let is_old = whole_age_ns >= WHOLE_EVERY_NS;
        let is_urgent = (suspicious && is_old) || is_pressing;
        let whole = (!suspicious || is_urgent) && is_due(ProbeId::Connections, is_urgent);
        let served = is_due(ProbeId::Clients, suspicious || is_new);
        match (whole, served) {
            (true, true) => Some(Self::WholeAndServed),
            (true, false) => Some(Self::Whole { answers: false }),
            (false, true) => Some(Self::Served),
            (false, false) => None,
        }
    }

    const fn is_whole(self) -> bool {
        matches!(self, Self::Whole { .. } | Self::WholeAndServed)
    }
}

/// Whether one destination uses most of the ephemeral ports.
fn is_pressed(last: Option<&SocketsRaw>) -> bool {
    let Some(ports) = last.map(|raw| &raw.ports) else { return false };
    let (low, high) = ports.range;
    let size = u64::from(high).saturating_sub(u64::from(low)).saturating_add(1);
    let most = ports.top.first().map_or(0, |(_, count)| u64::from(*count));
    most * 100 > size * PORTS_PRESSED_PERCENT
}

/// Ports remembered; a process that opens and closes listeners all day must not fill memory.
const ONCE_OWN_MAX: usize = 64;

/// The target's listeners, and those of others on its ports, or on ports that were its own.
fn own_first(
    mut all: Vec<ListenerRaw>,
    census: &Reading<fds::Census>,
    port: Option<u16>,
    once_own: &mut BTreeSet<u16>,
) -> Reading<Vec<ListenerRaw>> {
    let census = match (census, port) {
        (Reading::Got(census), _) => census,
        // Without a list of fds nobody knows whose they are: only a port that was named helps.
        (Reading::Absent(_), Some(port)) => {
            all.retain(|one| one.local.port() == port);
            return Reading::Got(all);
        }
        (Reading::Absent(absence), None) => return Reading::Absent(absence.clone()),
    };
    for listener in &mut all {
        let own = census.socket_inodes.contains(&u64::from(listener.inode));
        listener.holder = if own { Holder::Target } else { Holder::Other };
    }
    let ports: BTreeSet<u16> = all
        .iter()
        .filter(|listener| listener.holder == Holder::Target)
        .map(|listener| listener.local.port())
        .chain(port)
        .collect();
    for port in &ports {
        if once_own.len() < ONCE_OWN_MAX {
            once_own.insert(*port);
        }
    }
    let matters = |port: u16| ports.contains(&port) || once_own.contains(&port);
    all.retain(|listener| matters(listener.local.port()));
    all.sort_by_key(|listener| (listener.holder == Holder::Other, listener.local, listener.inode));
    all.truncate(LISTENERS_MAX);
    Reading::Got(all)
}

#[cfg(test)]
mod tests {
    use stallscope_probes::sample::PortsRaw;

    use super::*;

    fn listener(port: u16, inode: u32) -> ListenerRaw {
        ListenerRaw {
            local: ([127, 0, 0, 1], port).into(),
            inode,
            queued: 0,
            limit: Some(128),
            drops: Some(0),
            holder: Holder::Unknown,
        }
    }

    fn census(inodes: &[u64]) -> Reading<fds::Census> {
        let socket_inodes = inodes.iter().copied().collect();
        Reading::Got(fds::Census { socket_inodes, ..fds::Census::default() })
    }

    fn kept(
        all: &[(u16, u32)],
        census: &Reading<fds::Census>,
        port: Option<u16>,
    ) -> Vec<(u32, Holder)> {
        let all = all.iter().map(|(port, inode)| listener(*port, *inode)).collect();
        let kept = own_first(all, census, port, &mut BTreeSet::new());
        kept.got().unwrap().iter().map(|one| (one.inode, one.holder)).collect()
    }

    #[test]
    fn siblings_on_the_same_port_are_kept_after_the_targets_own() {
        let all = [(80, 1), (80, 2), (81, 3), (22, 4)];
        let own = [(2, Holder::Target), (3, Holder::Target), (1, Holder::Other)];
        assert_eq!(kept(&all, &census(&[2, 3, 99]), None), own);
        assert_eq!(kept(&all, &census(&[]), None), []);
        assert_eq!(kept(&all, &census(&[]), Some(22)), [(4, Holder::Other)]);
    }

    #[test]
    fn who_listens_on_a_port_that_was_the_targets_is_kept() {
        let mut once_own = BTreeSet::new();
        let all = |inode| vec![listener(80, inode), listener(22, 9)];
        let mut kept = |inode, own: &[u64]| {
            let kept = own_first(all(inode), &census(own), None, &mut once_own);
            kept.got().unwrap().iter().map(|one| (one.inode, one.holder)).collect::<Vec<_>>()
        };
        assert_eq!(kept(1, &[]), []);
        assert_eq!(kept(1, &[1]), [(1, Holder::Target)]);
        assert_eq!(kept(2, &[]), [(2, Holder::Other)]);
    }

    #[test]
    fn without_a_census_only_a_named_port_helps() {
        let hidden = Reading::absent(Why::NotPermitted, "no");
        assert_eq!(kept(&[(80, 1), (81, 2)], &hidden, Some(81)), [(2, Holder::Unknown)]);
        let none = own_first(vec![listener(80, 1)], &hidden, None, &mut BTreeSet::new());
        assert_eq!(none.absence().unwrap().why, Why::NotPermitted);
    }

    #[test]
    fn the_targets_own_are_kept_when_there_are_too_many() {
        let many = LISTENERS_MAX as u32 + 10;
        let all: Vec<(u16, u32)> = (0..many).map(|inode| (80, inode)).collect();
        let last = u64::from(many) - 1;
        let kept = kept(&all, &census(&[last]), None);
        assert_eq!((kept.len(), kept[0]), (LISTENERS_MAX, (many - 1, Holder::Target)));
    }

    fn sockets(total: u32, most: u32, truncated: bool) -> SocketsRaw {
        let top = vec![(([127, 0, 0, 1], 9092).into(), most)];
        let ports = PortsRaw { range: (40_000, 40_099), in_use: most, time_wait: 0, top };
        SocketsRaw { served: Vec::new(), ports, total, truncated }
    }

    /// The last one, when, what is due in its own time, what is due when it is urgent, which census.
    type Row<'a> = (Option<&'a SocketsRaw>, When, &'a [ProbeId], &'a [ProbeId], Option<Look>);

    #[test]
    fn the_census_by_what_the_last_one_found_and_what_is_due() {
        use ProbeId::{Clients, Connections};
        let (few, many) = (sockets(FEW_SOCKETS_MAX, 0, false), sockets(2_001, 0, false));
        let (pressed, cut) = (sockets(9_000, 71, false), sockets(9, 0, true));
        let when = |suspicious, whole_age_ns, is_new| When { suspicious, whole_age_ns, is_new };
        let (calm, suspicious) = (when(false, 0, false), when(true, 0, false));
        let new = when(false, 0, true);
        let aged = |when: When| When { whole_age_ns: WHOLE_EVERY_NS, ..when };
        let both: &[ProbeId] = &[Connections, Clients];
        let with = Some(Look::Whole { answers: true });
        let without = Some(Look::Whole { answers: false });
        let (two, served) = (Some(Look::WholeAndServed), Some(Look::Served));
        let cases: &[Row<'_>] = &[
            (None, calm, both, both, without),
            (None, suspicious, both, both, without),
            (Some(&few), calm, both, both, with),
            (Some(&few), calm, &[Clients], both, None),
            (Some(&few), new, &[], both, with),
            (Some(&few), suspicious, &[], both, with),
            (Some(&few), suspicious, &[], &[], None),
            (Some(&many), calm, both, both, two),
            (Some(&many), calm, &[Connections], both, without),
            (Some(&many), calm, &[Clients], both, served),
            (Some(&many), calm, &[], both, None),
            (Some(&many), new, &[], both, served),
            (Some(&many), suspicious, both, both, served),
            (Some(&many), aged(suspicious), &[], both, two),
            (Some(&many), aged(suspicious), &[], &[Clients], served),
            (Some(&cut), calm, both, both, two),
            (Some(&pressed), calm, &[], both, None),
            (Some(&pressed), aged(calm), &[], both, without),
            (Some(&pressed), aged(suspicious), &[], both, two),
        ];
        for (at, (last, when, due, due_if_urgent, expected)) in cases.iter().enumerate() {
            let is_due = |probe: ProbeId, is_urgent| {
                due.contains(&probe) || (is_urgent && due_if_urgent.contains(&probe))
            };
            assert_eq!(Look::choose(*last, *when, is_due), *expected, "case {at}");
        }
        assert!(is_pressed(Some(&pressed)) && !is_pressed(None));
        assert!(!is_pressed(Some(&sockets(9_000, 70, false))));
    }
}

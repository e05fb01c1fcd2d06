//! Clients with habits of their own, each of which makes a healthy server look ill.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};

use super::{LONG_REQUEST, raise_fd_limit};
use crate::lab::victims::{Options, say_ready};

/// Connections that are held open and idle.
const HELD: usize = 4000;
/// Requests sent at once, each on a connection of its own.
const BURST: usize = 200;
/// Shortest time between two bursts, and what chance may add to it.
const CALM_MIN: Duration = Duration::from_secs(1);
const CALM_MORE_MS: u64 = 1000;
/// Clients that send a byte at a time, and never a whole request.
const DRIPPERS: usize = 20;
const DRIP_EVERY: Duration = Duration::from_millis(200);
/// Clients whose long requests begin one after the other.
const STAGGERED: u32 = 50;
/// Clients that wait for a push.
const AWAITING_PUSH: usize = 20;
/// Clients whose connection was upgraded, and that say nothing more.
const UPGRADED: usize = 200;
/// Pause of the one client whose answers take 4 s.
const REST: Duration = Duration::from_secs(2);
/// Pause after a failure.
const BACK_OFF: Duration = Duration::from_millis(100);

/// Runs `client` on a current-thread runtime, with the server's address, until it ends.
fn run(
    options: &Options,
    client: impl AsyncFnOnce(SocketAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let server = options.connect.context("--connect says which server")?;
    raise_fd_limit()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        say_ready(None)?;
        client(server).await
    })
}

fn request(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: lab\r\n{fields}\r\n").into_bytes()
}

/// One request and its answer, of which `ending` is the end.
async fn ask(stream: &mut TcpStream, request: &[u8], ending: &[u8]) -> anyhow::Result<()> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(ending) {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the server closed the connection");
    }
    Ok(())
}

async fn get(stream: &mut TcpStream, path: &str) -> anyhow::Result<()> {
    ask(stream, &request(path, ""), b"ok").await
}

/// Asks again and again, for ever, on one connection as long as it holds.
async fn keep_asking(server: SocketAddr, path: &str, pause: Duration) {
    loop {
        if let Ok(mut stream) = TcpStream::connect(server).await {
            while get(&mut stream, path).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        }
        tokio::time::sleep(BACK_OFF).await;
    }
}

/// Opens 4,000 connections, is served once on each, and holds them.
pub(super) fn holds(options: &Options) -> anyhow::Result<()> {
    run(options, async |server| {
        let mut held = Vec::with_capacity(HELD);
        for _ in 0..HELD {
            let mut stream = TcpStream::connect(server).await?;
            get(&mut stream, "/").await?;
            held.push(stream);
        }
        std::future::pending().await
    })
}

/// 200 requests at once, then nothing for 1 to 2 s.
pub(super) fn bursts(options: &Options) -> anyhow::Result<()> {
    let mut seed = options.seed;
    run(options, async |server| {
        loop {
            let all: Vec<_> = (0..BURST)
                .map(|_| {
                    spawn_local(async move {
                        let mut stream = TcpStream::connect(server).await?;
                        get(&mut stream, "/").await
                    })
                })
                .collect();
            for one in all {
                one.await?.ok();
            }
            let more = Duration::from_millis(chance(&mut seed) % CALM_MORE_MS);
            tokio::time::sleep(CALM_MIN + more).await;
        }
    })
}

/// The next of a series of numbers that the seed determines: `SplitMix64` (Steele, Lea, Flood 2014).
fn chance(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *seed;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A byte every 200 ms on each of 20 connections: the head of a request that has no end.
pub(super) fn drips(options: &Options) -> anyhow::Result<()> {
    run(options, async |server| {
        let mut streams = Vec::with_capacity(DRIPPERS);
        for _ in 0..DRIPPERS {
            streams.push(TcpStream::connect(server).await?);
        }
        let head = request("/", "x-drip: ");
        let begun = head.iter().take(head.len() - 2).copied();
        for byte in begun.chain(std::iter::repeat(b'x')) {
            for stream in &mut streams {
                stream.write_all(&[byte]).await?;
            }
            tokio::time::sleep(DRIP_EVERY).await;
        }
        Ok(())
    })
}

/// 50 clients that ask without pause for what takes 3 s, begun evenly over those 3 s.
pub(super) fn staggers(options: &Options) -> anyhow::Result<()> {
    run(options, async |server| {
        for _ in 0..STAGGERED {
            spawn_local(keep_asking(server, "/", Duration::ZERO));
            tokio::time::sleep(LONG_REQUEST / STAGGERED).await;
        }
        std::future::pending().await
    })
}

/// 20 clients that wait for what the server has to say 20 s later.
pub(super) fn awaits_push(options: &Options) -> anyhow::Result<()> {
    run(options, async |server| {
        for _ in 0..AWAITING_PUSH {
            spawn_local(keep_asking(server, "/after/20000", Duration::ZERO));
        }
        std::future::pending().await
    })
}

/// The server's only client, whose answers take 4 s each.
pub(super) fn waits(options: &Options) -> anyhow::Result<()> {
    run(options, async |server| {
        keep_asking(server, "/after/4000", REST).await;
        Ok(())
    })
}

/// 200 connections that are upgraded, as to a websocket, and then idle.
pub(super) fn upgrades(options: &Options) -> anyhow::Result<()> {
    run(options, async |server| {
        let upgrade = request("/upgrade", "connection: upgrade\r\nupgrade: websocket\r\n");
        let mut held = Vec::with_capacity(UPGRADED);
        for _ in 0..UPGRADED {
            let mut stream = TcpStream::connect(server).await?;
            ask(&mut stream, &upgrade, b"\r\n\r\n").await?;
            held.push(stream);
        }
        std::future::pending().await
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_is_as_published_and_the_same_for_the_same_seed() {
        let mut seed = 1_234_567;
        let series: Vec<u64> = (0..3).map(|_| chance(&mut seed)).collect();
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(series, published);
    }
}

//! The two ways in which hyper does not work on tokio-uring, as `docs/hyper-on-uring.md` explains
//! them, and the one in which it does is `serve tokio-uring-hyper`.
#![cfg(feature = "servers")]

/// What an executor for hyper that is made for tokio-uring would do with a connection's future:
/// nothing sends it to another thread, so it need not be `Send`. But hyper's own examples serve
/// within `tokio::main`, and there is no `LocalSet` there.
#[test]
#[should_panic(expected = "`spawn_local` called from outside of a `task::LocalSet`")]
fn spawning_locally_takes_a_local_set() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::task::spawn_local(async {}).await.unwrap();
    });
}

/// tokio-uring's runtime is one of tokio's, and a thread that runs one cannot wait for another.
#[test]
#[should_panic(expected = "Cannot start a runtime from within a runtime")]
fn a_runtime_within_a_runtime_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio_uring::start(async {});
    });
}

/// Within tokio-uring's own runtime there is a `LocalSet`: connections are spawned on it.
#[test]
fn within_tokio_uring_it_can_be_spawned() {
    let answer = tokio_uring::start(async { tokio_uring::spawn(async { 7 }).await.unwrap() });
    assert_eq!(answer, 7);
}

//! What the servers ask of the runtime they are on, whichever it is: tasks of this thread, and
//! time. tokio's and tokio-uring's are the same (tokio-uring runs on a current-thread tokio);
//! glommio has its own.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

/// Whose tasks and timers a thread has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// tokio's, within a `LocalSet`.
    Tokio,
    /// glommio's, within a `LocalExecutor`.
    Glommio,
}

thread_local! {
    static KIND: Cell<Kind> = const { Cell::new(Kind::Tokio) };
}

/// Says whose runtime this thread is about to run.
pub(super) fn is_of(kind: Kind) {
    KIND.set(kind);
}

/// Starts a task on this thread's runtime. It ends by itself, or with the runtime.
#[track_caller]
pub(super) fn spawn(future: impl Future<Output = ()> + 'static) {
    match KIND.get() {
        Kind::Tokio => drop(tokio::task::spawn_local(future)),
        Kind::Glommio => drop(glommio::spawn_local(future).detach()),
    }
}

/// Waits.
pub(super) async fn sleep(duration: Duration) {
    let mut timer = Timer::at(Instant::now() + duration);
    std::future::poll_fn(|cx| timer.poll_fired(cx)).await;
}

/// What `future` gives, unless it takes longer than `duration`; then it is dropped.
pub(super) async fn within<T>(duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep(duration) => None,
    }
}

/// Lets the other tasks have a turn.
pub(super) async fn yield_now() {
    match KIND.get() {
        Kind::Tokio => tokio::task::yield_now().await,
        Kind::Glommio => futures_lite::future::yield_now().await,
    }
}

/// A timer of this thread's runtime, to be set again and again.
pub(super) struct Timer {
    fires: Instant,
    inner: Inner,
}

enum Inner {
    Tokio(Pin<Box<tokio::time::Sleep>>),
    Glommio {
        timer: glommio::timer::Timer,
        /// Whom it will wake. glommio would note that down again at each poll, in a tree.
        wakes: Option<Waker>,
    },
}

impl Timer {
    /// Fires at this time.
    pub(super) fn at(fires: Instant) -> Self {
        let inner = match KIND.get() {
            Kind::Tokio => Inner::Tokio(Box::pin(tokio::time::sleep_until(fires.into()))),
            Kind::Glommio => {
                let timer = glommio::timer::Timer::new(from_now(fires));
                Inner::Glommio { timer, wakes: None }
            }
        };
        Self { fires, inner }
    }

    /// When it fires.
    pub(super) const fn fires(&self) -> Instant {
        self.fires
    }

    /// Fires at another time. Whoever polled it last is woken then.
    pub(super) fn reset(&mut self, fires: Instant) {
        self.fires = fires;
        match &mut self.inner {
            Inner::Tokio(sleep) => sleep.as_mut().reset(fires.into()),
            Inner::Glommio { timer, wakes } => {
                timer.reset(from_now(fires));
                *wakes = None;
            }
        }
    }

    /// Ready once it has fired.
    pub(super) fn poll_fired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.inner {
            Inner::Tokio(sleep) => ready!(sleep.as_mut().poll(cx)),
            Inner::Glommio { timer, wakes } => {
                let is_known = wakes.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
                if is_known && Instant::now() < self.fires {
                    return Poll::Pending;
                }
                *wakes = Some(cx.waker().clone());
                ready!(Pin::new(timer).poll(cx));
                *wakes = None;
            }
        }
        Poll::Ready(())
    }
}

fn from_now(at: Instant) -> Duration {
    at.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits_and_gives_up() {
        let began = Instant::now();
        let (told, hears) = tokio::sync::oneshot::channel();
        spawn(async move {
            yield_now().await;
            sleep(Duration::from_millis(20)).await;
            told.send(()).unwrap();
        });
        assert_eq!(within(Duration::from_millis(1), std::future::pending::<()>()).await, None);
        assert!(within(Duration::from_mins(1), hears).await.unwrap().is_ok());
        assert!(began.elapsed() >= Duration::from_millis(20));
        let mut timer = Timer::at(Instant::now() + Duration::from_hours(1));
        assert!(
            within(Duration::from_millis(1), std::future::poll_fn(|cx| timer.poll_fired(cx)))
                .await
                .is_none()
        );
        timer.reset(Instant::now() + Duration::from_millis(5));
        std::future::poll_fn(|cx| timer.poll_fired(cx)).await;
        assert!(timer.fires() <= Instant::now());
    }

    #[test]
    fn time_and_tasks_are_those_of_the_runtime() {
        let main = async || {
            waits_and_gives_up().await;
            Ok(())
        };
        super::super::tokio_tcp::run(main, || ()).unwrap();
        std::thread::spawn(move || {
            let main = async || {
                waits_and_gives_up().await;
                Ok(())
            };
            super::super::glommio_tcp::run(main, || ()).unwrap();
        })
        .join()
        .unwrap();
    }
}

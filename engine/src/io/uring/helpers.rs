//! Helper threads, for what would hold the core or block the thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::wake::EventBell;
use crate::io::{Bell, Event};

/// A piece of work, and what its end is announced by, if by anything.
pub(super) type Task = Box<dyn FnOnce() -> Option<Event> + Send>;

struct Shared {
    state: Mutex<State>,
    /// There is a task, or no more will come.
    news: Condvar,
    bell: Arc<EventBell>,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    done: Vec<Event>,
    idle: usize,
    stopping: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(task) = state.tasks.pop_front() {
                drop(state);
                let event = task();
                state = self.state();
                if event.is_some() {
                    state.done.extend(event);
                    self.bell.ring();
                }
            } else if state.stopping {
                return;
            } else {
                state.idle += 1;
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

/// A few threads, started when they are first needed. Work is queued in order; the reactor bounds how much of it.
pub(super) struct Helpers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    name: String,
    most: usize,
}

impl Helpers {
    pub(super) fn new(name: String, most: usize, bell: Arc<EventBell>) -> Helpers {
        let shared = Shared { state: Mutex::default(), news: Condvar::new(), bell };
        Helpers { shared: Arc::new(shared), threads: Vec::new(), name, most }
    }

    pub(super) fn run(&mut self, task: Task) {
        let mut state = self.shared.state();
        state.tasks.push_back(task);
        let hands_missing = state.tasks.len() > state.idle;
        drop(state);
        self.shared.news.notify_one();
        if hands_missing && self.threads.len() < self.most {
            let shared = Arc::clone(&self.shared);
            let thread = thread::Builder::new().name(self.name.clone()).spawn(move || shared.work());
            match thread {
                Ok(thread) => self.threads.push(thread),
                // The others will do it; without any there is no going on.
                Err(error) => assert!(!self.threads.is_empty(), "no helper thread can be started: {error}"),
            }
        }
    }

    /// What has been done since.
    pub(super) fn collect(&self, events: &mut Vec<Event>) {
        events.append(&mut self.shared.state().done);
    }
}

impl Drop for Helpers {
    /// Drops what is queued, and waits for what is being done.
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.stopping = true;
        state.tasks.clear();
        drop(state);
        self.shared.news.notify_all();
        for thread in self.threads.drain(..) {
            // A helper that panicked has said so already.
            let _ = thread.join();
        }
    }
}

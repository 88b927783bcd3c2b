//! A panic in a task ends only that task, and nobody may ask for it. Here every panic on a run's thread is remembered.

use std::cell::RefCell;
use std::sync::Once;

thread_local! {
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Begins to watch this thread.
pub(super) fn begin() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            SEEN.with_borrow_mut(|seen| {
                seen.get_or_insert_with(|| panic.to_string());
            });
            before(panic);
        }));
    });
    SEEN.set(None);
}

/// The first panic since then.
#[must_use]
pub(super) fn seen() -> Option<String> {
    SEEN.with_borrow(Clone::clone)
}

//! Bodies: in memory taken from one budget, or in a file where they are large or memory is short.
//!
//! `max_memory` is one [`Budget`] for the bodies of a whole process. A body that holds octets never waits
//! for more memory, so that two senders cannot wait for each other: a step that cannot be had at once
//! sends it to a file. What it waits for then is the disk alone, and only its own sender waits.
//!
//! | room | what lives there |
//! |---|---|
//! | `budget` | the memory there is, and free buffers |
//! | `body` | the octets of one message, wherever they are |
//! | `spill` | the thread that writes files and maps them |

mod body;
mod budget;
mod spill;
#[cfg(test)]
mod tests;

pub use body::{Body, Fault};
pub use budget::{Budget, Waiting};
pub use spill::Spiller;
#[cfg(test)]
pub(crate) use spill::by_hand::ByHand;

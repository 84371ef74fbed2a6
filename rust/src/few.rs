//! A list that is nearly always empty: then it takes one word, where a `Vec` takes three. Thousands of
//! idle connections hold some.

/// Values in the order in which they came.
#[derive(Debug)]
pub struct Few<T>(Option<Box<Link<T>>>);

/// The last value, and those before it.
#[derive(Debug)]
struct Link<T> {
    value: T,
    earlier: Option<Box<Self>>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Few<T> {
    /// Puts a value behind the others.
    pub fn push(&mut self, value: T) {
        let earlier = self.0.take();
        self.0 = Some(Box::new(Link { value, earlier }));
    }

    /// Takes all of them out, oldest first.
    pub fn take(&mut self) -> Vec<T> {
        let mut taken = Vec::new();
        let mut next = self.0.take();
        while let Some(link) = next {
            let Link { value, earlier } = *link;
            taken.push(value);
            next = earlier;
        }
        taken.reverse();
        taken
    }
}

impl<T> Drop for Few<T> {
    fn drop(&mut self) {
        // One after the other: left to itself, each link would drop the one before it within its own drop.
        drop(self.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_in_comes_out_in_order_and_once() {
        let mut few = Few::default();
        assert_eq!(few.take(), [0_u32; 0]);
        (0..4).for_each(|value| few.push(value));
        assert_eq!(few.take(), [0, 1, 2, 3]);
        few.push(4);
        assert_eq!((few.take(), few.take()), (vec![4], vec![]));
    }

    #[test]
    fn an_empty_one_is_a_word_and_a_long_one_can_be_dropped() {
        assert_eq!(size_of::<Few<[u8; 100]>>(), size_of::<usize>());
        let mut few = Few::default();
        (0..1_000_000).for_each(|value| few.push(value));
        drop(few);
    }
}

//! Whatever is counted at two places, each finds what a `HashMap` would.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const WINDOW: u64 = 60_000;

#[derive(Clone, Copy, Debug)]
enum Deed {
    Open,
    TakeBack,
    Close(bool),
    Count,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => Just(Deed::Open),
        1 => Just(Deed::TakeBack),
        3 => any::<bool>().prop_map(Deed::Close),
        1 => Just(Deed::Count),
    ]
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    held: u64,
    count: u64,
    began: u64,
}

impl Known {
    fn recent(self, now: u64) -> u64 {
        if now - self.began < WINDOW { self.count } else { 0 }
    }

    fn count(&mut self, now: u64) {
        let recent = self.recent(now);
        if recent == 0 {
            self.began = now;
        }
        self.count = recent + 1;
    }

    fn does(&mut self, deed: Deed, now: u64) {
        match deed {
            Deed::Open => {
                self.held += 1;
                self.count(now);
            }
            Deed::TakeBack => {
                self.held = self.held.saturating_sub(1);
                self.count = self.count.saturating_sub(1);
            }
            Deed::Close(remember) => {
                self.held = self.held.saturating_sub(1);
                if self.held == 0 && !remember {
                    self.count = 0;
                }
            }
            Deed::Count => self.count(now),
        }
    }
}

proptest! {
    #[test]
    fn a_table_is_a_map(
        deeds in proptest::collection::vec((deed(), 0..2_usize, 1..9_u64, 0..20_000_u64), 0..200),
    ) {
        let tenants = processes(2);
        let mut model = HashMap::<(usize, u64), Known>::new();
        let mut now = WINDOW;
        for (deed, place, number, pause) in deeds {
            now += pause;
            // Eight of them: as many as one set has room for.
            let key = Key { kind: Kind::Address, hash: number };
            let tenant = &tenants[place];
            match deed {
                Deed::Open => drop(tenant.open(key, now)),
                Deed::TakeBack => tenant.take_back(key, now),
                Deed::Close(remember) => tenant.close(key, remember),
                Deed::Count => tenant.count(key, now),
            }
            model.entry((place, number)).or_default().does(deed, now);
            for number in 1..9 {
                let known = [0, 1].map(|place| model.get(&(place, number)).copied().unwrap_or_default());
                let expected = Sum {
                    held: known.iter().map(|known| known.held).sum(),
                    recent: known.iter().map(|known| known.recent(now)).sum(),
                };
                let key = Key { kind: Kind::Address, hash: number };
                prop_assert_eq!(tenants[place].sum(key, now), expected);
            }
        }
    }
}

//! Which of several sorted runs goes next: a tree of losers, in which a run that has moved on plays only against
//! those that lost on its own way to the top, and nothing but run numbers is moved.

/// The heads of runs, and who has the lowest. Of equal heads that of the lower run goes first.
#[derive(Debug)]
pub struct Tournament<K> {
    heads: Vec<Option<K>>,
    /// Of every game above the runs, by its place in the tree, who lost it; the first is the winner of all.
    games: Vec<usize>,
}

impl<K: Ord> Tournament<K> {
    /// Plays the first record of every run; `None` where a run has none.
    pub fn new(heads: Vec<Option<K>>) -> Self {
        let runs = heads.len();
        let mut tournament = Tournament { heads, games: vec![0; runs] };
        // Runs stand behind the games, as the leaves of the tree.
        let mut winners: Vec<usize> = std::iter::repeat_n(0, runs).chain(0..runs).collect();
        for game in (1..runs).rev() {
            let of = |place: usize| winners.get(place).copied().unwrap_or_default();
            let (mut winner, mut loser) = (of(2 * game), of(2 * game + 1));
            if tournament.beats(loser, winner) {
                (winner, loser) = (loser, winner);
            }
            tournament.set(game, loser);
            if let Some(slot) = winners.get_mut(game) {
                *slot = winner;
            }
        }
        // Of a single run there is no game, and its only place is that of the winner.
        tournament.set(0, winners.get(1).copied().unwrap_or_default());
        tournament
    }

    fn set(&mut self, game: usize, run: usize) {
        if let Some(slot) = self.games.get_mut(game) {
            *slot = run;
        }
    }

    fn head(&self, run: usize) -> Option<&K> {
        self.heads.get(run).and_then(Option::as_ref)
    }

    /// Whether run `a` goes before run `b`; a run that has ended goes last.
    fn beats(&self, a: usize, b: usize) -> bool {
        match (self.head(a), self.head(b)) {
            (Some(mine), Some(other)) => mine.cmp(other).then(a.cmp(&b)).is_lt(),
            (mine, _) => mine.is_some(),
        }
    }

    /// The run that goes next; `None` once all have ended.
    pub fn first(&self) -> Option<usize> {
        self.games.first().copied().filter(|run| self.head(*run).is_some())
    }

    /// The run that goes next moves on to its next record; its head until now.
    pub fn next(&mut self, head: Option<K>) -> Option<K> {
        let mut winner = self.games.first().copied()?;
        let before = std::mem::replace(self.heads.get_mut(winner)?, head);
        let mut game = (winner + self.heads.len()) / 2;
        while game > 0 {
            let loser = self.games.get(game).copied()?;
            if self.beats(loser, winner) {
                self.set(game, winner);
                winner = loser;
            }
            game /= 2;
        }
        self.set(0, winner);
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_in_order_and_equal_ones_by_run(runs in prop::collection::vec(prop::collection::vec(0u8..9, 0..12), 0..20)) {
            let mut wanted: Vec<(u8, usize)> =
                runs.iter().enumerate().flat_map(|(run, records)| records.iter().map(move |record| (*record, run))).collect();
            wanted.sort_unstable();
            let mut runs: Vec<_> = runs
                .into_iter()
                .map(|mut records| {
                    records.sort_unstable();
                    records.into_iter()
                })
                .collect();
            let mut tournament = Tournament::new(runs.iter_mut().map(Iterator::next).collect());
            let mut found = Vec::new();
            while let Some(run) = tournament.first() {
                let next = runs[run].next();
                found.push((tournament.next(next).unwrap(), run));
            }
            prop_assert_eq!(found, wanted);
        }
    }
}

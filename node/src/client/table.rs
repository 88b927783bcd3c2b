//! Tables for people: columns as wide as their widest cell, two spaces between, numbers to the right.

/// A table, row by row.
#[derive(Debug)]
pub(super) struct Table {
    heads: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these columns.
    pub(super) fn new<const N: usize>(heads: [&'static str; N]) -> Self {
        Self {
            heads: heads.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; it has as many cells as the table has columns.
    pub(super) fn row<const N: usize>(&mut self, cells: [String; N]) {
        assert_eq!(N, self.heads.len(), "a row has a cell for each column");
        self.rows.push(cells.map(|cell| clean(&cell)).to_vec());
    }

    /// The table as text, each line ended.
    pub(super) fn text(&self) -> String {
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let lines = || std::iter::once(&heads).chain(&self.rows);
        let columns: Vec<(usize, bool)> = (0..heads.len())
            .map(|column| {
                let width = lines()
                    .map(|line| line[column].chars().count())
                    .max()
                    .unwrap_or(0);
                let numeric = self.rows.iter().all(|line| is_number(&line[column]));
                (width, numeric && !self.rows.is_empty())
            })
            .collect();
        let mut text = String::new();
        for line in lines() {
            let cells = line.iter().zip(&columns).map(|(cell, (width, numeric))| {
                if *numeric {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        text
    }
}

fn is_number(cell: &str) -> bool {
    cell == "-"
        || (!cell.is_empty()
            && cell
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.'))
}

/// A cell may hold what a client wrote: nothing in it moves the cursor or colors the terminal.
fn clean(cell: &str) -> String {
    cell.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_are_on_the_right() {
        let mut table = Table::new(["NAME", "COUNT"]);
        table.row(["a".into(), "5".into()]);
        table.row(["long name".into(), "1000".into()]);
        assert_eq!(
            table.text(),
            "NAME       COUNT\na              5\nlong name   1000\n"
        );
    }

    #[test]
    fn a_cell_cannot_write_to_the_terminal() {
        let mut table = Table::new(["NAME"]);
        table.row(["\u{1b}[31mred\n".into()]);
        assert!(!table.text().contains('\u{1b}'));
        assert_eq!(table.text().lines().count(), 2);
    }
}

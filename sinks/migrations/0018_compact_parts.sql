-- Of the time that stored rows cost a server, more than half went into merging them, and a quarter into making files: a part of 10 MB
-- had one or two files for each of some 50 columns, and an insert of 30,000 rows is such a part, for a second or two.
--   * min_bytes_for_wide_part: parts keep all columns in one file until they have so many bytes (uncompressed; 10 MB is the default);
--     columns still lie apart in it, and are read apart;
--   * merge_selector_base: merges wait for about twice as many parts of one size (5 is the default), so a row is merged less often.
ALTER TABLE trace_events MODIFY SETTING min_bytes_for_wide_part = 1073741824, merge_selector_base = 10;

ALTER TABLE rewards MODIFY SETTING min_bytes_for_wide_part = 1073741824, merge_selector_base = 10;

ALTER TABLE rollups MODIFY SETTING min_bytes_for_wide_part = 1073741824, merge_selector_base = 10;

ALTER TABLE ledger MODIFY SETTING min_bytes_for_wide_part = 1073741824, merge_selector_base = 10;

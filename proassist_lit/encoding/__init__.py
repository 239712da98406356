"""From video files to feature files: many videos, many workers, once."""

#include "fs/event_log.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

size_t count(const std::string& text, const std::string& word) {
  size_t found = 0;
  for (size_t at = text.find(word); at != std::string::npos; at = text.find(word, at + 1)) found++;
  return found;
}

TEST(EventLog, TellsOfANameOnceAndOfItsMoves) {
  EventLog log;
  log.note_resolved("org/m", "a");
  log.note_resolved("org/m", "a");
  log.note_resolved("org/m", "b");
  const std::string text = *log.text();
  EXPECT_EQ(count(text, "resolved org/m a\n"), 1U);
  EXPECT_EQ(count(text, "moved org/m b from a\n"), 1U);
  EXPECT_EQ(count(text, "\n"), 2U);
}

// A file name from a hub must not forge a line.
TEST(EventLog, OneEventIsOneLine) {
  EventLog log;
  ContentRow content;
  content.id = 7;
  content.repo.id = "org/m";
  content.path = "a\n2026-01-01T00:00:00Z error forged\x1b[2J\xc2\x9b";
  log.note_opened(content);
  log.note_opened(content);
  EXPECT_EQ(count(*log.text(), "\n"), 1U);
  EXPECT_EQ(log.text()->find('\x1b'), std::string::npos);
  EXPECT_EQ(log.text()->find('\x9b'), std::string::npos);
}

TEST(EventLog, DropsTheOlderHalfAtALine) {
  EventLog log;
  const std::string words(1000, 'x');
  for (int i = 0; i < 2000; i++) log.add("info", cat(words, ' ', i));
  const auto text = log.text();
  EXPECT_LE(text->size(), EventLog::kMaxBytes);
  EXPECT_EQ(text->substr(0, 2), "20") << "begins with a time";
  EXPECT_TRUE(text->ends_with(" 1999\n"));
}

}  // namespace
}  // namespace cake

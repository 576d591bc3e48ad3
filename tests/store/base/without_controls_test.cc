#include "store/base/without_controls.h"

#include <gtest/gtest.h>

namespace cake {
namespace {

TEST(WithoutControls, ReplacesC0AndDelete) {
  EXPECT_EQ(without_controls("x\x1b]0;pwned\a\x1b[31m\n\t\x7f", '?'), "x?]0;pwned??[31m???");
}

// U+009B is CSI in one character; a terminal that is not in UTF-8 takes the byte alone for it.
TEST(WithoutControls, ReplacesC1AsUtf8AndAsBytes) {
  EXPECT_EQ(without_controls("a\xc2\x9b"
                             "31m\xc2\x80\xc2\x9f",
                             '?'),
            "a?31m??");
  EXPECT_EQ(without_controls("a\x9b"
                             "31m",
                             '?'),
            "a?31m");
  EXPECT_EQ(without_controls("\xe0\x82\x9b", '?'), "\xe0??") << "overlong";
  EXPECT_EQ(without_controls("\xc2", '?'), "\xc2") << "cut off";
}

TEST(WithoutControls, LeavesOtherText) {
  // Their last bytes lie between 80 and 9f.
  for (const char* text : {"plain", "\u00e0", "\u4e1b", "\u201b", "\U0001f41b", "\xe9t\xe9"})
    EXPECT_EQ(without_controls(text, '?'), text);
}

}  // namespace
}  // namespace cake

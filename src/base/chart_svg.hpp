// The pieces of SVG a chart is written with.
#pragma once

#include <string>

namespace sinew::chart {

std::string px(double value);                // a coordinate, to a hundredth of a pixel, in the fewest digits
double text_width(const std::string& text);  // estimated, pixels
std::string text_at(double x, double y, const std::string& text, const char* cls,
                    const char* anchor = "start", const std::string& extra = "");
std::string rule(double x1, double y1, double x2, double y2, const char* cls);
std::string box(double x, double y, double width, double height, const std::string& attributes);

std::string style();          // the <style> element with every class, light and dark
std::size_t tone(int color);  // of the palette's classes c0.. (fill) and s0.. (stroke)
const char* dash(int color);  // of a line of that colour: palettes after the first are dashed
// Viridis (CC0) at `part` in [0, 1]; `light` says that dark text reads better on it.
std::string heat(double part, bool* light);

}  // namespace sinew::chart

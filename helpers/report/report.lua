-- From the resolved notebooks' Markdown to what pandoc's writers expect. Numbers and texts are already there.
local HTML = FORMAT:match 'html' ~= nil
local stringify = pandoc.utils.stringify

-- Tables ------------------------------------------------------------------------------------------------------------

-- pandas writes the names of columns and of the index in two header rows that do not overlap: make them one.
local function is_blank(cell) return not stringify(cell):gsub('\u{a0}', ''):match '%S' end

local function one_header_row(head)
  local upper, lower = head.rows[1], head.rows[2]
  if #head.rows ~= 2 or #upper.cells ~= #lower.cells then return end
  for i in ipairs(upper.cells) do
    if not is_blank(upper.cells[i]) and not is_blank(lower.cells[i]) then return end
  end
  for i, cell in ipairs(upper.cells) do
    if is_blank(cell) then upper.cells[i] = lower.cells[i] end
  end
  head.rows = { upper }
end

local function is_number(text)
  text = text:gsub('%s', '')
  return text == '' or text == '–' or text == 'NaN' or text:match '^[−+-]?[%d.,]+[%%eE%d.,±×·+−–%[%]()-]*$'
end

local function tidy(tbl)
  one_header_row(tbl.head)
  for _, row in ipairs(tbl.head.rows) do
    for _, cell in ipairs(row.cells) do
      if cell.col_span > 1 then cell.alignment = 'AlignCenter' end
    end
  end
  for i, spec in ipairs(tbl.colspecs) do
    local numeric = true
    for _, row in ipairs(tbl.bodies[1] and tbl.bodies[1].body or {}) do
      numeric = numeric and (not row.cells[i] or is_number(stringify(row.cells[i])))
    end
    if spec[1] == 'AlignDefault' then tbl.colspecs[i] = { numeric and 'AlignRight' or 'AlignLeft', spec[2] } end
  end
  return tbl
end

-- Texts: cells.py fences each Markdown cell and each output, and each is read for itself -----------------------------

local MATH = { equation = '', align = 'aligned', gather = 'gathered', eqnarray = 'aligned', multline = 'gathered' }

-- TeX outside dollars: JupyterLab typesets the environments of equations; everything else stays visible as it is.
local function tex(text)
  local name, body = text:match '^%s*\\begin{(%a+)%*?}(.*)\\end{%a+%*?}%s*$'
  if not MATH[name] then return pandoc.Code(text) end
  body = body:gsub('\\label{[^}]*}', ''):gsub('\\nonumber', ''):gsub('\\notag', '')
  if MATH[name] ~= '' then body = '\\begin{' .. MATH[name] .. '}' .. body .. '\\end{' .. MATH[name] .. '}' end
  return pandoc.Math('DisplayMath', body)
end

local is_tex = { tex = true, latex = true }
local from_text = {
  RawBlock = function(block) if is_tex[block.format] then return pandoc.Para { tex(block.text) } end end,
  RawInline = function(inline) if is_tex[inline.format] then return tex(inline.text) end end,
}

local function is_empty(blocks)
  local empty = not stringify(blocks):match '%S'
  blocks:walk { Image = function() empty = false end }
  return empty
end

local function read(block)
  if block.classes:includes 'markdown-text' then
    local reader = { format = 'markdown', extensions = PANDOC_READER_OPTIONS.extensions }
    return pandoc.read(block.text, reader, PANDOC_READER_OPTIONS).blocks:walk(from_text):walk { Table = tidy }
  elseif block.classes:includes 'html-text' then
    local text = block.text:gsub(' id="T_?%d[^"]*"', '')  -- pandas numbers its cells anew in each notebook
    local blocks = pandoc.read(text, 'html').blocks
    blocks = blocks:walk { Div = function(div) return div.content end, Table = tidy }
    if is_empty(blocks) then return pandoc.Para(pandoc.Emph 'An output that only JupyterLab shows.') end
    return blocks
  end
end

-- Ids are unique in the whole document, though each text has its own.
local taken = {}
local function unique(header)
  local id, count = header.identifier, 1
  while id ~= '' and taken[header.identifier] do
    count = count + 1
    header.identifier = id .. '-' .. count
  end
  taken[header.identifier] = true
  return header
end

local function scroller(tbl, named)                    -- on a narrow screen a table scrolls, the page does not
  return pandoc.Div({ tbl }, { '', { 'scroll' }, named or {} })
end

local scroll_all = {
  traverse = 'topdown',
  Div = function(div) if div.classes:includes 'scroll' then return div, false end end,
  Table = function(tbl) return scroller(tbl), false end,
}

local function minus(str)                              -- what a program prints as "-0.5"
  return pandoc.Str((str.text:gsub('^([%[(]?)%-(%.?%d)', '%1−%2')))
end

-- Anchors: <a id="fig-x"></a> alone in a paragraph belongs to what follows ------------------------------------------

local function anchor(block)                           -- id and the rest of the paragraph
  if block.t ~= 'Para' or block.content[1].t ~= 'RawInline' then return end
  local id = block.content[1].text:match '^<a id="([^"]+)">$'
  if id then return id, pandoc.Inlines { table.unpack(block.content, 3) } end
end

local function is_caption(block)                       -- **Figure 3.** ... or **Supplementary Figure S3.** ...
  local first = block.t == 'Para' and block.content[1]
  return first and first.t == 'Strong' and stringify(first):match '^[%a ]+ S?%d+%.$'
end

local function captioned(id, content, caption)
  caption = { long = { pandoc.Plain(caption.content) } }
  if id:match '^tbl' and #content == 1 and content[1].t == 'Table' then
    if not HTML then
      content[1].identifier, content[1].caption = id, caption
      return content[1]
    end
    caption.long[1] = pandoc.Plain { pandoc.Span(caption.long[1].content, { id .. '-caption' }) }
    content = { scroller(content[1], { { 'role', 'region' }, { 'aria-labelledby', id .. '-caption' } }) }
  end
  return pandoc.Figure(content, caption, { id })
end

local function equation(id, math)                      -- the number is written as \tag{3}
  local number
  math.text = math.text:gsub('%s*\\tag{(S?%d+)}%s*$', function(n) number = n return '' end)
  if HTML then
    return pandoc.Div({ pandoc.Para { math }, pandoc.Para('(' .. number .. ')') }, { id, { 'equation' } })
  end
  local text = pandoc.write(pandoc.Pandoc { pandoc.Para { math } }, 'typst'):gsub('%s+$', '')
  return pandoc.RawBlock('typst',
    ('#[#set math.equation(numbering: _ => "(%s)")\n%s <%s>]'):format(number, text, id))
end

local ids = {}                                         -- what links may lead to

local function attach(blocks)
  local out, i = pandoc.Blocks {}, 1
  while i <= #blocks do
    local id, rest = anchor(blocks[i])
    local following = blocks[i + 1]
    if id then ids[id] = true end
    if not id then
      out:insert(blocks[i])
    elseif #rest > 0 then                              -- an entry of the references
      local small = pandoc.RawBlock('typst', '#set text(size: 7.8pt)')  -- within this block; HTML has its style sheet
      out:insert(pandoc.Div({ small, pandoc.Para(rest) }, { id, { 'reference' }, HTML and {} or { ['typst:spacing'] = '0.31em' } }))
    elseif following.t == 'Header' then
      following.identifier = id
    elseif id:match '^eq' then
      out:insert(equation(id, following.content[1]))
      i = i + 1
    elseif id:match '^fig' or id:match '^tbl' then
      local content = pandoc.Blocks {}
      i = i + 1
      while not is_caption(blocks[i]) do
        content:insert(blocks[i])
        i = i + 1
      end
      out:insert(captioned(id, content, blocks[i]))
    else
      out:insert(pandoc.Div({ following }, { id }))
      i = i + 1
    end
    i = i + 1
  end
  return out
end

-- Links: other notebooks are part of the same document --------------------------------------------------------------

local function inside(link)
  local target = link.target:gsub('^[%w_./-]+%.ipynb', '')
  if target == '' then return link.content end
  if ids[target:sub(2):lower()] then target = target:lower() end  -- JupyterLab: #My-Heading
  if target:sub(1, 1) == '#' and not ids[target:sub(2)] then
    if HTML then
      pandoc.log.warn('the link ' .. link.target .. ' leads nowhere')
      return link.content
    end
    target = 'report.html' .. target                   -- in the supplement, which only the HTML has
  end
  link.target = target
  return link
end

-- The PDF leaves out what stands in brackets and only points to the supplement: "(Supplementary Table S1)".
local function is_pointer(inline)
  return inline.t == 'Link' and inline.target:match '^report%.html#' ~= nil
end

local function pointers_until(inlines, first)          -- the index of the string that closes the bracket
  for i = first, #inlines do
    local inline = inlines[i]
    if inline.t == 'Str' and inline.text:match '^%)' then return i > first and i or nil end
    if not (is_pointer(inline) or inline.t == 'Space' or inline.t == 'SoftBreak' or inline.text == ',') then return nil end
  end
end

local function without_pointers(inlines)
  local out, i = pandoc.Inlines {}, 1
  while i <= #inlines do
    local last = inlines[i].t == 'Str' and inlines[i].text == '(' and pointers_until(inlines, i + 1)
    if last then
      while #out > 0 and (out[#out].t == 'Space' or out[#out].t == 'SoftBreak') do out:remove() end
      inlines[last].text = inlines[last].text:sub(2)
      i = last
      if inlines[i].text == '' then i = i + 1 end
    else
      out:insert(inlines[i])
      i = i + 1
    end
  end
  return out
end

-- Typst -------------------------------------------------------------------------------------------------------------

local PAGE = 493                                        -- points between the margins

local function length(width)                           -- pixels and what HTML calls so are no lengths in Typst
  local pixels = tonumber(width:match '^([%d.]+)p?x?$')
  if pixels then return pixels * 0.75 > PAGE and '100%' or pixels * 0.75 .. 'pt' end
  return width:match '^[%d.]+[cm]?m$' and width or width:match '^[%d.]+[pei][tmn]$' or width:match '^[%d.]+%%$' or 'auto'
end

local function typst_image(image)                      -- the writer drops the alternative text
  local width, alt = length(image.attributes.width or ''), stringify(image.caption)
  return pandoc.RawInline('typst', ('#image("%s", width: %s, alt: "%s")'):format(
    image.src, width, (alt:gsub('\\', '\\\\'):gsub('"', '\\"'))))
end

local HTML_INLINES = {
  b = pandoc.Strong, strong = pandoc.Strong, i = pandoc.Emph, em = pandoc.Emph, u = pandoc.Underline,
  s = pandoc.Strikeout, del = pandoc.Strikeout, sub = pandoc.Subscript, sup = pandoc.Superscript,
}

-- <b>, <sub> and the like, which the writer would drop: they end in the paragraph in which they begin.
local function html_inlines(inlines)
  local stack = { { content = pandoc.Inlines {} } }
  local function close()
    local top = table.remove(stack)
    stack[#stack].content:insert(HTML_INLINES[top.tag](top.content))
  end
  for _, inline in ipairs(inlines) do
    local slash, tag
    if inline.t == 'RawInline' then slash, tag = inline.text:lower():match '^<(/?)(%w+)' end
    if tag == 'br' then
      stack[#stack].content:insert(pandoc.LineBreak())
    elseif HTML_INLINES[tag] and slash == '' then
      table.insert(stack, { tag = tag, content = pandoc.Inlines {} })
    elseif tag and stack[#stack].tag == tag then
      close()
    else
      stack[#stack].content:insert(inline)
    end
  end
  while #stack > 1 do close() end
  return stack[1].content
end

local function guard(cell)                             -- "+ x", "- x", "= x" at the start of a cell is Typst markup
  local first = cell.contents[1] and cell.contents[1].content and cell.contents[1].content[1]
  if first and first.t == 'Str' and first.text:match '^[-+=/]' then
    cell.contents[1].content:insert(1, pandoc.RawInline('typst', '#[]'))
  end
  return cell
end

local function bold(cell)
  cell.contents = cell.contents:walk { Plain = function(text) return pandoc.Plain(pandoc.Strong(text.content)) end }
  return cell
end

local function text_at(row, i)                         -- nothing where a cell spans several columns or rows
  return row.cells[i] and stringify(row.cells[i].contents) or ''
end

-- Columns of much text share the width of the page by how much they hold; short tables stay as narrow as they are.
local function share_width(tbl, rows)
  local amount, longest, total, widest = {}, {}, 0, 0
  for i = 1, #tbl.colspecs do
    amount[i], longest[i] = 0, 0
    for _, row in ipairs(rows) do
      local length = utf8.len(text_at(row, i))
      amount[i], longest[i] = amount[i] + length, math.max(longest[i], length)
    end
    local title = tbl.head.rows[1] and text_at(tbl.head.rows[#tbl.head.rows], i) or ''
    amount[i] = math.max(amount[i] / #rows, #title) ^ 0.6
    total, widest = total + amount[i], widest + longest[i]
  end
  if widest < 110 then return end
  for i, spec in ipairs(tbl.colspecs) do tbl.colspecs[i] = { spec[1], amount[i] / total } end
end

local MOST_COLUMNS = 12                                 -- that a page holds

-- The columns in the middle of a very wide table give way to an ellipsis.
local function leave_out_columns(tbl, rows)
  local first, more = MOST_COLUMNS // 2, #tbl.colspecs - MOST_COLUMNS + 1
  for _, row in ipairs(rows) do if #row.cells ~= #tbl.colspecs then return end end
  for _, row in ipairs(rows) do
    for _ = 2, more do row.cells:remove(first + 1) end
    row.cells[first + 1].contents = pandoc.Blocks { pandoc.Plain '…' }
  end
  for _ = 2, more do tbl.colspecs:remove(first + 1) end
  return pandoc.Para(pandoc.Emph((more .. ' columns (…) are in report.html.')))
end

local function typst_table(tbl)
  local body = tbl.bodies[1] and tbl.bodies[1].body or {}
  local note
  if #tbl.colspecs > MOST_COLUMNS then
    local rows = pandoc.List { table.unpack(tbl.head.rows) }
    note = leave_out_columns(tbl, rows .. body)
  end
  if #body > 0 then share_width(tbl, body) end
  for _, row in ipairs(tbl.head.rows) do row.cells = row.cells:map(bold) end
  for _, row in ipairs(body) do row.cells = row.cells:map(guard) end
  if #body <= 25 then return { tbl, note } end
  local open = pandoc.RawBlock('typst', '#[#show figure: set block(breakable: true)')
  return { open, tbl, pandoc.RawBlock('typst', ']'), note }  -- only a long table may break
end

-- Marks for layout.py: what may move, and what stays with the block before it.

local function ends_a_sentence(block)
  return block.t ~= 'Header' and (block.t ~= 'Para' or stringify(block):match '[.?!”"’)]%s*$' ~= nil)
end

local function is_equation(block)
  return block.t == 'RawBlock' or block.t == 'Para' and block.content[1].t == 'Math'
end

local function goes_on(block)                          -- in the middle of a sentence
  return block.t == 'Para' and (block.content[1].t == 'Math' or stringify(block):match '^%l' ~= nil)
end

local function is_question(block, before)              -- of the brief, below its heading
  return before and before.t == 'Header' and block.t == 'Para' and #block.content == 1 and block.content[1].t == 'Emph'
end

local function with_the_next(block)                    -- never the last line of a page
  return pandoc.Div({ block }, { '', {}, { ['typst:sticky'] = 'true', ['typst:spacing'] = '0.52em' } })
end

local function mark(blocks)
  local out, before = pandoc.Blocks {}, nil
  for _, block in ipairs(blocks) do
    local kind, shown = 'text', is_question(block, before) and with_the_next(block) or block
    if block.t == 'Figure' or block.t == 'Table' and block.identifier ~= '' then
      kind = 'float'
    elseif before and (not ends_a_sentence(before) or is_equation(block) or goes_on(block)) then
      kind = 'bound'
    end
    if kind ~= 'float' then before = block end
    out:extend { pandoc.RawBlock('typst', '//: ' .. kind), shown }
  end
  return out
end

function Pandoc(doc)
  doc = doc:walk { CodeBlock = read }:walk { Str = minus }
  doc.blocks = attach(doc.blocks)
  doc = doc:walk { Header = unique }
  for id in pairs(taken) do ids[id] = true end
  doc = doc:walk { Link = inside }
  if HTML then return doc:walk(scroll_all) end
  doc = doc:walk { Inlines = html_inlines }:walk { Inlines = without_pointers }
  doc.blocks = mark(doc.blocks)
  return doc:walk { Image = typst_image, Table = typst_table }
end
